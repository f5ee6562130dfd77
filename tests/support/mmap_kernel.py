"""What the kernel says of maps of this process, and how to make it refuse to sync one."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from pathlib import Path

from probate_mmap.libc import address_of


def is_mapped(path: str | os.PathLike[str]) -> bool:
    """Whether any part of a file is mapped (proc(5), maps)."""
    return os.fsdecode(path) in Path("/proc/self/maps").read_text()


def descriptors_of(path: str | os.PathLike[str]) -> list[int]:
    """The descriptors that refer to a path (proc(5), fd)."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if target.removesuffix(" (deleted)") == os.fsdecode(path):
            found.append(int(entry.name))
    return found


def dirty_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes written to maps of a file that are not on its disk yet (proc(5), smaps)."""
    total = 0
    is_ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_ours = line.endswith(os.fsdecode(path))
        elif is_ours and (match := re.match(r"(?:Private|Shared)_Dirty:\s+(\d+) kB", line)):
            total += int(match[1]) * 1024
    return total


def break_sync(native: mmap.mmap) -> None:
    """Unmap the second page of a map, so that syncing it fails with ENOMEM (msync(2)).

    One page of a hole, which nothing but another one-page map could fall into.
    """
    assert len(native) >= 3 * mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    assert libc.munmap(address_of(native) + mmap.PAGESIZE, mmap.PAGESIZE) == 0
