"""What the kernel says that descriptor numbers refer to (proc(5), /proc/PID/fd)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING, Final

from probate.system.clib import last_error, libc

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where message queues are files (statfs(2)), and bytes that a `struct statfs` has at most.
_MQUEUE_MAGIC: Final = 0x19800202
_STATFS_SIZE: Final = 256


def path_of(fd: int) -> str:
    """Return the kernel's name of what `fd` refers to: a path, or one such as "pipe:[4711]".

    Empty if it is not open.
    """
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def links_of(process: str) -> Iterator[tuple[str, str]]:
    """Yield the descriptors of a process, and what each is; none if it may not be looked into."""
    folder = f"/proc/{process}/fd"
    for number in listed(folder):
        with contextlib.suppress(OSError):
            yield number, os.readlink(f"{folder}/{number}")


def is_on_mqueue(path: str) -> bool:
    """Whether the file system of a file is that of POSIX message queues (mq_overview(7)).

    A path such as "/proc/PID/fd/7" is followed to what is open there, which is not opened again.
    Raises OSError.
    """
    result = ctypes.create_string_buffer(_STATFS_SIZE)
    if libc().statfs(os.fsencode(path), result) != 0:
        raise last_error(path)
    return ctypes.c_long.from_buffer(result).value == _MQUEUE_MAGIC


def listed(folder: str) -> list[str]:
    """List a folder of /proc; nothing if it is gone, or may not be looked into."""
    try:
        return os.listdir(folder)  # noqa: PTH208  a fraction of the time
    except OSError:
        return []
