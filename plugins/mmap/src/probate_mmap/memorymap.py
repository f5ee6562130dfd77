"""Maps that hold no descriptor.

An `mmap.mmap` of a file keeps a duplicate of its descriptor, which it does not show, and which
it keeps for as long as a buffer of it is exported (cpython#115635). Closing that number behind
its back would be worse: it closes the number once more at its own end, whosever it is by then.
So a `MemoryMap` never has one, which Python 3.13 offers as `trackfd=False`.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from pathlib import Path
from typing import Final, NoReturn, final

from probate_mmap import libc

#: mmap(2); where its value is another one, this bit is ignored for private maps.
_MAP_NORESERVE: Final = 0x4000


@final
class MemoryMap(mmap.mmap):
    """An `mmap.mmap` of fixed length that holds no descriptor."""

    #: Path of the mapped file, absolute; None for an anonymous map.
    path: str | None = None
    #: Device and inode of the mapped file.
    file_identity: tuple[int, int] | None = None

    def size(self) -> int:
        """Bytes of the whole mapped file; of an anonymous map, its own length.

        Raises FileNotFoundError if the path is no longer this file's, ValueError if closed.
        """
        length = len(self)
        if self.path is None:
            return length
        status = Path(self.path).stat()
        if (status.st_dev, status.st_ino) != self.file_identity:
            raise FileNotFoundError(errno.ENOENT, "is another file by now", self.path)
        return status.st_size

    def resize(self, newsize: int) -> NoReturn:
        """Raises ValueError: its owner is charged for the length that it has."""
        raise ValueError(
            f"a map that a process owns keeps its length: make another of {newsize} bytes"
        )


def map_anonymous(length: int, *, shared: bool) -> MemoryMap:
    """Map `length` bytes of zeros, shared with later children or private. Raises OSError."""
    return MemoryMap(-1, length, flags=mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE)


def map_descriptor(
    fd: int, path: str, length: int, *, shared: bool, writable: bool, offset: int = 0
) -> MemoryMap:
    """Map `length` bytes of an open file from `offset` on; the descriptor may be closed then.

    Raises OSError if the kernel refuses.
    """
    flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
    prot = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
    status = os.fstat(fd)
    if sys.version_info >= (3, 13):
        native = MemoryMap(fd, length, flags, prot, offset=offset, trackfd=False)
    else:
        native = _map_untracked(fd, length, flags, prot, offset)
    native.path = path
    native.file_identity = (status.st_dev, status.st_ino)
    return native


def _map_untracked(fd: int, length: int, flags: int, prot: int, offset: int) -> MemoryMap:
    """What `trackfd=False` does: an anonymous map, and the file laid over it.

    MAP_FIXED is safe over a range that is reserved by a map of one's own (mmap(2)).
    """
    # A file that cannot be mapped is found out by its first page, before anything is replaced.
    page = min(length, mmap.PAGESIZE)
    libc.try_to_map(fd, page, prot=prot, flags=flags, offset=offset)
    native = MemoryMap(-1, length, flags=mmap.MAP_PRIVATE | _MAP_NORESERVE, prot=prot)
    try:
        libc.map_file_over(
            libc.address_of(native), fd, length, prot=prot, flags=flags, offset=offset
        )
    except OSError:
        # There may be a hole now, and others' memory in it soon; unmapping it would take that.
        libc.never_finalise(native)
        raise
    return native
