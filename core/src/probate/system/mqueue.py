"""What is a POSIX message queue, which looks like a file."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from probate.system.clib import last_error, libc

#: Where message queues are files (statfs(2)), and bytes that a `struct statfs` has at most.
_MQUEUE_MAGIC: Final = 0x19800202
_STATFS_SIZE: Final = 256


def is_on_mqueue(path: str) -> bool:
    """Whether the file system of a file is that of POSIX message queues (mq_overview(7)).

    A path such as "/proc/PID/fd/7" is followed to what is open there, which is not opened again.
    Raises OSError.
    """
    result = ctypes.create_string_buffer(_STATFS_SIZE)
    if libc().statfs(os.fsencode(path), result) != 0:
        raise last_error(path)
    return ctypes.c_long.from_buffer(result).value == _MQUEUE_MAGIC
