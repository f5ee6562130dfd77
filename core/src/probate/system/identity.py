"""Files behind descriptor numbers and paths: identified, and closed or unlinked while the same.

The kernel hands out the lowest free number (open(2)), so that a number which somebody has closed
soon means another file. What was there at acquisition is compared before a number is closed.
"""

from __future__ import annotations

import fcntl
import functools
import os
import stat
from typing import Final, NamedTuple, final

from probate.outcome import Outcome
from probate.system.lingering import close_at_once
from probate.system.numbers import path_of

_ACCESS: Final = {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "rw"}

#: The flags that stay as they were opened.
_LASTING: Final = os.O_ACCMODE | os.O_PATH


@final
class FileIdentity(NamedTuple):
    """Tells one open file from another, without holding it open.

    Device and inode alone do not: both ends of a pipe share them, and so do all eventfds, epoll
    and signal descriptors, which have the one inode of anonymous things.
    """

    device: int
    inode: int
    #: File type (inode(7)); 0 for the kernel's anonymous inodes.
    file_type: int
    #: Access mode and O_PATH, which stay as they were opened (fcntl(2), F_SETFL).
    access: int
    #: What /proc calls it, such as "anon_inode:[eventfd]", if it has the inode that all have which
    #: have none of their own; else empty.
    name: str

    def __str__(self) -> str:
        device = f"{os.major(self.device)}:{os.minor(self.device)}"
        return f"device {device}, inode {self.inode}"

    @property
    def mode(self) -> str:
        """Return how it may be used: "r", "w", "rw", or "path" (O_PATH)."""
        if self.access & os.O_PATH:
            return "path"
        return _ACCESS.get(self.access & os.O_ACCMODE, "?")

    @property
    def is_stream(self) -> bool:
        """Tell whether a write may have to wait for a reader: a pipe, a FIFO, a socket."""
        return self.file_type in {stat.S_IFIFO, stat.S_IFSOCK}


def identify(fd: int) -> FileIdentity:
    """Return the identity of what `fd` refers to now. Raises OSError (EBADF) if it is not open."""
    mode, inode, device = os.fstat(fd)[:3]
    file_type = stat.S_IFMT(mode)
    access = fcntl.fcntl(fd, fcntl.F_GETFL) & _LASTING
    name = "" if file_type or (device, inode) != _shared_inode() else path_of(fd)
    return FileIdentity(device, inode, file_type, access, name)


@functools.cache
def _shared_inode() -> tuple[int, int]:
    """Device and inode of eventfds, epolls and the like; of pidfds, too, before Linux 6.9."""
    # Of an eventfd, since gevent takes `select.epoll` away.
    any_one = os.eventfd(0)
    try:
        status = os.fstat(any_one)
    finally:
        os.close(any_one)
    return status.st_dev, status.st_ino


def is_still(fd: int, identity: FileIdentity) -> bool:
    """Tell whether `fd` still refers to the file that has this identity; False if it is closed."""
    device, inode, file_type, access, name = identity
    try:
        mode, inode_now, device_now = os.fstat(fd)[:3]
        return (
            inode_now == inode
            and device_now == device
            and stat.S_IFMT(mode) == file_type
            and (
                # Each socket has an inode of its own.
                file_type == stat.S_IFSOCK
                or (
                    fcntl.fcntl(fd, fcntl.F_GETFL) & _LASTING == access
                    and (not name or path_of(fd) == name)
                )
            )
        )
    except OSError:
        return False


def close_if_same(fd: int, identity: FileIdentity) -> Outcome:
    """Close a descriptor if it still refers to the file that has this identity.

    Returns ALREADY_GONE if it does not: it was closed elsewhere, and its number may be somebody
    else's by now. A socket does not linger. Raises OSError from close(2); the number is free all
    the same then.
    """
    if not is_still(fd, identity):
        return Outcome.ALREADY_GONE
    if identity.file_type == stat.S_IFSOCK:
        close_at_once(fd)
    os.close(fd)
    return Outcome.RELEASED


def unlink_if_same(path: str, status: os.stat_result) -> Outcome:
    """Unlink a path if it still names the file of this status; leave another one alone.

    They are told apart by device and inode (inode(7)), which are a file's own only while it
    exists: the caller keeps it open, or pinned by O_PATH. Returns ALREADY_GONE if it is not
    there, or is another. Raises OSError from unlink(2).
    """
    try:
        if not os.path.samestat(os.lstat(path), status):
            return Outcome.ALREADY_GONE
        os.unlink(path)  # noqa: PTH108  as lstat, on the same string
    except (FileNotFoundError, NotADirectoryError):
        return Outcome.ALREADY_GONE
    return Outcome.RELEASED
