"""Names that the kernel gives to files, OS processes and namespaces, which no later one gets again.

Device and inode number are a file's own only while it exists: on ext4, 200 successors of one name
had one number. A file handle (name_to_handle_at(2)) has the inode's generation as well; it takes
no privilege to get, and is compared, never opened. Of an OS process the handle of its pidfd is
such a name (Linux 6.14): to open it again is to learn whether that very process still is.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
import time
from functools import partial
from typing import Any, Final, NamedTuple, final

from probate.system.clib import last_error, libc
from probate.system.making import using

_AT_EMPTY_PATH: Final = 0x1000

#: The file system exports no handles that can be opened, only such to compare: Linux 6.5.
_AT_HANDLE_FID: Final = 0x200

#: MAX_HANDLE_SZ, include/linux/fs.h.
_MOST_BYTES: Final = 128

#: The type of a handle of a namespace, as `file_handle` has it (include/linux/exportfs.h).
_FILEID_NSFS: Final = "241"

_IPC_NAMESPACE: Final = "/proc/self/ns/ipc"
#: PROC_IPC_INIT_INO: of the namespace that the machine begins with, and of no other.
_FIRST_IPC_NAMESPACE: Final = f"inode:{0xEFFFFFFF}"


#: `struct file_handle`, fcntl.h: how many bytes there are, and of which type; then these.
_HANDLE: Final = struct.Struct("Ii")

#: include/uapi/linux/stat.h: what is asked for, the size of the answer, and what is in it: the
#: inode and the device, the time of the last change as well, the time of birth.
_STATX_INO: Final = 0x100
_STATX_BTIME: Final = 0x800
_STATX_SIZE: Final = 256
_STATX_NUMBERS: Final = struct.Struct("=32xQ96xII")
_STATX_MTIME: Final = 0x40
_STATX_STAMP: Final = struct.Struct("=32xQ72xqI12xII")
_STATX_BORN: Final = struct.Struct("=I76xqI")

_CURRENT_FOLDER: Final = -100

#: What says that there is no file, rather than no handle.
_NOTHING_THERE: Final = {errno.EBADF, errno.ENOENT, errno.ENOTDIR}

#: Where the kernel writes what nobody asks for.
_IGNORED: Final = ctypes.byref(ctypes.c_int())

#: Where it writes its answers: each is one call's at a time, of whatever thread or signal handler.
_buffers: Final[list[Any]] = []


def _take_buffer() -> Any:
    try:
        return _buffers.pop()
    except IndexError:
        return ctypes.create_string_buffer(max(_STATX_SIZE, _HANDLE.size + _MOST_BYTES))


def device_and_inode(file: int | bytes) -> tuple[int, int, int]:
    """Return what tells a file from any other while it is there, by its descriptor or its path.

    As stat(2) does, but for the times: to the next write after somebody has looked at those the
    kernel gives a new one, which takes longer than the look (multigrain timestamps, Linux 6.13).
    Raises OSError.
    """
    buffer = _take_buffer()
    if isinstance(file, int):
        result = libc().statx(file, b"", _AT_EMPTY_PATH, _STATX_INO, buffer)
    else:
        result = libc().statx(_CURRENT_FOLDER, file, 0, _STATX_INO, buffer)
    if result != 0:
        raise last_error()
    numbers: tuple[int, int, int] = _STATX_NUMBERS.unpack_from(buffer)
    _buffers.append(buffer)
    return numbers


@final
class FolderStamp(NamedTuple):
    """Tells a folder, and what is in it by name, from what it was at another time."""

    inode: int
    #: When something in it was last made, removed or renamed, in seconds since the epoch.
    changed: int
    nanoseconds: int
    major: int
    minor: int


def folder_stamp(path: bytes) -> FolderStamp:
    """Return the stamp of a folder. Raises OSError."""
    buffer = _take_buffer()
    if libc().statx(_CURRENT_FOLDER, path, 0, _STATX_INO | _STATX_MTIME, buffer) != 0:
        raise last_error()
    stamp = FolderStamp._make(_STATX_STAMP.unpack_from(buffer))
    _buffers.append(buffer)
    return stamp


def _handle(folder: int, path: bytes, flags: int) -> str | None:
    """Ask for a handle, which is its type and its bytes as text; None, with errno, if refused."""
    buffer = _take_buffer()
    _HANDLE.pack_into(buffer, 0, _MOST_BYTES, 0)
    if libc().name_to_handle_at(folder, path, buffer, _IGNORED, flags):
        return None
    length, kind = _HANDLE.unpack_from(buffer)
    found = f"{kind}:{buffer[_HANDLE.size : _HANDLE.size + length].hex()}"
    _buffers.append(buffer)
    return found


def file_handle(file: int | str, *, folder: int = _CURRENT_FOLDER) -> str | None:
    """Return the handle of what a descriptor refers to, or of what is at a path, as text.

    A path may begin at an open `folder`; a link in its last place is not followed. Returns None
    where there are no handles (FUSE). It says which flag it was asked with: one may be compared
    with its like only. Raises OSError (EBADF, ENOENT, ENOTDIR).
    """
    if isinstance(file, int):
        folder, path, how = file, b"", _AT_EMPTY_PATH
    else:
        path, how = os.fsencode(file), 0
    if (found := _handle(folder, path, how | _AT_HANDLE_FID)) is not None:
        return f"fid:{found}"
    if ctypes.get_errno() not in _NOTHING_THERE:
        if (found := _handle(folder, path, how)) is not None:
            return f"handle:{found}"
        if ctypes.get_errno() not in _NOTHING_THERE:
            return None
    raise last_error()


def queue_handle(mqd: int) -> str:
    """Return the file handle of an open POSIX queue; or its inode number.

    That is drawn from a counter for the whole kernel, so it does as well before Linux 6.5, where
    a queue has no handle. Raises OSError.
    """
    return file_handle(mqd) or f"inode:{os.fstat(mqd).st_ino}"


def birth_time(fd: int) -> int | None:
    """Return when a file was made, in ns since the epoch; None if its file system forgets.

    As the kernel had it (statx(2), "stx_btime"). Raises OSError.
    """
    buffer = _take_buffer()
    if libc().statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) != 0:
        raise last_error()
    known, seconds, nanoseconds = _STATX_BORN.unpack_from(buffer)
    _buffers.append(buffer)
    return int(seconds) * 1_000_000_000 + int(nanoseconds) if known & _STATX_BTIME else None


def process_handle(pidfd: int) -> str | None:
    """Return the handle of the OS process behind a pidfd; None before Linux 6.14.

    Before that, all pidfds had the one inode of anonymous things, which has none.
    """
    return _handle(pidfd, b"", _AT_EMPTY_PATH)


def open_process(handle: str) -> int | None:
    """Return a new pidfd of the OS process of this handle; None if it is dead.

    Raises OSError if this kernel cannot say (open_by_handle_at(2)).
    """
    kind, _, text = handle.partition(":")
    data = bytes.fromhex(text)
    buffer = ctypes.create_string_buffer(_HANDLE.pack(len(data), int(kind)) + data)
    own = os.pidfd_open(os.getpid())
    try:
        fd: int = libc().open_by_handle_at(own, buffer, os.O_RDONLY | os.O_CLOEXEC)
        number = ctypes.get_errno()
    finally:
        os.close(own)
    if fd >= 0:
        return fd
    if number == errno.ESTALE:
        return None
    raise OSError(number, os.strerror(number), f"process handle {handle}")


def ipc_namespace() -> str:
    """Return what names the IPC namespace of this process (ipc_namespaces(7)).

    It has System V objects and POSIX queues. By its handle no later one is called so (Linux 6.18);
    before, it has but an inode number, which the kernel gives again.
    """
    try:
        return using(partial(os.open, _IPC_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC), _name_of)
    except FileNotFoundError:
        # A kernel without such namespaces has the first one.
        return _FIRST_IPC_NAMESPACE


def _name_of(namespace: int) -> str:
    handle = file_handle(namespace)
    if handle is not None and handle.split(":")[1] == _FILEID_NSFS:
        return handle
    return f"inode:{os.fstat(namespace).st_ino}"


def is_lasting_namespace(name: str) -> bool:
    """Tell whether no later namespace has the name that `ipc_namespace` has returned."""
    return not name.startswith("inode:") or name == _FIRST_IPC_NAMESPACE


@functools.cache
def boot_id() -> str:
    """Return what names this boot of the machine (random(4))."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _namespace(name: str) -> int:
    # Not by pathlib, which takes half as long to import as all else that a run needs.
    return os.stat(f"/proc/self/ns/{name}").st_ino  # noqa: PTH116


def pid_namespace() -> int:
    """Return the number of the pid namespace, whose processes are seen (namespaces(7))."""
    return _namespace("pid")


def network_namespace() -> int:
    """Return the number of the network namespace, whose sockets are seen (namespaces(7))."""
    return _namespace("net")


def mount_namespace() -> int:
    """Return the number of the mount namespace, whose mounts are seen (namespaces(7))."""
    return _namespace("mnt")


def seconds_since_boot() -> float:
    """Return the clock that no one sets, and that goes on in suspense (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
