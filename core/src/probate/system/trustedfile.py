"""Small files that tell a program what to do: read only if nobody else can have written them.

What is judged is the open file, and what is read is the same one, so that nobody can put another
in its place in between. Links are followed one by one, each judged by its owner: whoever makes one
chooses the file.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from pathlib import Path
from typing import Final, NamedTuple, final

#: Neither waits for the writer of a FIFO (fifo(7)), nor follows the last link (open(2)).
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC

#: As many links as the kernel follows (path_resolution(7)).
_LINKS: Final = 40


@final
class FileRead(NamedTuple):
    """What is in a file, and whether it may be gone by."""

    #: None if it was not read; what is not to be trusted may be told apart by it, and no more.
    content: bytes | None
    #: Who else may have written it, and how to mend that; empty if it is to be trusted.
    distrust: str = ""


def read_judged(path: str, at_most: int) -> FileRead | None:
    """Read a file of `at_most` bytes, and judge whether others can have written it.

    Others are all but this user (its effective id) and root. Returns None if there is nothing of
    that name. Raises OSError for a file to be trusted that cannot be read: larger, no regular
    one, forbidden, or a link to nothing.
    """
    where = path
    for _ in range(_LINKS):
        try:
            fd = os.open(where, _FLAGS)
        except OSError as error:
            try:
                status = os.lstat(where)
            except (FileNotFoundError, PermissionError) as unseen:
                if where != path:
                    raise
                if isinstance(unseen, FileNotFoundError):
                    return None
                return FileRead(None, "its folder may not be searched; start in another one")
            if distrust := _distrust(status, where):
                return FileRead(None, distrust)
            if stat.S_ISSOCK(status.st_mode):
                raise _no_file(where) from None
            if not stat.S_ISLNK(status.st_mode):
                raise error from None
            where = str(Path(where).parent / os.readlink(where))
        else:
            return _read(fd, where, at_most)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _read(fd: int, path: str, at_most: int) -> FileRead:
    try:
        status = os.fstat(fd)
        distrust = _distrust(status, path)
        if not stat.S_ISREG(status.st_mode):
            if distrust:
                return FileRead(None, distrust)
            raise _no_file(path)
        with open(fd, "rb", closefd=False) as file:
            content = file.read(at_most + 1)
    finally:
        os.close(fd)
    if len(content) <= at_most:
        return FileRead(content, distrust)
    if distrust:
        return FileRead(None, distrust)
    raise OSError(errno.EFBIG, f"It is larger than {at_most} bytes", path)


def _no_file(path: str) -> OSError:
    return OSError(errno.EINVAL, "It is no regular file", path)


def _distrust(status: os.stat_result, path: str) -> str:
    """Say who else may have written a file, and how to mend that; empty if nobody."""
    is_link = stat.S_ISLNK(status.st_mode)
    name = shlex.quote(str(Path(path).absolute()))
    if status.st_uid not in {os.geteuid(), 0}:
        what, chown = ("is a link of", "chown -h") if is_link else ("belongs to", "chown")
        return (
            f"it {what} user {status.st_uid}, who is neither this one nor root; if you trust it, "
            f"{chown} {os.geteuid()} {name}"
        )
    # The kernel says of every link that all may write it, and lets nobody (symlink(7)).
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_link:
        return f"others than its owner may write it; if you trust it, chmod go-w {name}"
    return ""
