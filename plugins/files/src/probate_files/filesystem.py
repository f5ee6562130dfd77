"""Which files live in memory, so that no write to them and no close waits for a disk or a host."""

from __future__ import annotations

import os
import stat
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate_files.identity import FileIdentity

#: TMPFS_MAGIC, which memory files have too (memfd_create(2)), and RAMFS_MAGIC (statfs(2)).
_IN_MEMORY: Final = {0x01021994, 0x858458F6}


def is_in_memory(fd: int, identity: FileIdentity) -> bool:
    """Whether `fd` is a regular file, or a folder, on a file system in memory.

    Nothing is remembered of a device: its number is given out again once it is unmounted.
    """
    # Whatever has no block device has the major number 0; the others need not be asked.
    return (
        identity.file_type in {stat.S_IFREG, stat.S_IFDIR}
        and os.major(identity.device) == 0
        and _asker()(fd) in _IN_MEMORY
    )


@cache
def _asker() -> Callable[[int], int]:
    """What tells the type of the file system that a descriptor is on, -1 if nothing does."""
    # Only a few processes ever need it, and not all interpreters have it.
    try:
        import ctypes

        fstatfs = ctypes.CDLL(None, use_errno=True).fstatfs
    except (ImportError, OSError, AttributeError):
        return lambda _: -1

    def ask(fd: int) -> int:
        # `struct statfs` begins with its `f_type`; it has 120 bytes, at most.
        found = (ctypes.c_ulong * 32)()
        return found[0] & 0xFFFFFFFF if fstatfs(fd, found) == 0 else -1

    return ask
