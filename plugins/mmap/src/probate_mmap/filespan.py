"""A part of a file, checked before anything is acquired."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, final

from probate.system import checked_int, using

if TYPE_CHECKING:
    from collections.abc import Callable

M = TypeVar("M")


@final
class FileSpan(NamedTuple):
    """So many bytes of a file, from an offset on."""

    path: str
    length: int
    offset: int

    def use(self, use: Callable[[int], M], *, for_writing: bool) -> M:
        """Open the file for one call, having looked again. Raises as `find_span`."""

        def look_and_use(fd: int) -> M:
            _fitting(os.fstat(fd), self.path, self.length, self.offset)
            return use(fd)

        # A FIFO that has taken the file's place must not block us.
        mode = os.O_RDWR if for_writing else os.O_RDONLY
        flags = mode | os.O_CLOEXEC | os.O_NONBLOCK
        return using(partial(os.open, self.path, flags), look_and_use)


def find_span(path: object, length: object, offset: object) -> FileSpan:
    """Return the part of the file at `path`, up to its end if `length` is 0.

    Raises TypeError, ValueError for numbers that do not fit the file, FileNotFoundError,
    IsADirectoryError, and OSError from the kernel.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"expected the path of a file, got {path!r}")
    checked = checked_length(length, least=0)
    start = checked_int("the offset of a map", offset)
    if start < 0 or start % mmap.ALLOCATIONGRANULARITY:
        raise ValueError(
            "the offset of a map must be a multiple of mmap.ALLOCATIONGRANULARITY, "
            f"{mmap.ALLOCATIONGRANULARITY} bytes, got {start}"
        )
    # The working directory may be another one by the time that a report names the file.
    text = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  Path.absolute keeps ".."
    return FileSpan(text, _fitting(Path(text).stat(), text, checked, start), start)


def checked_length(length: object, *, least: int) -> int:
    """Return `length`, in bytes. Raises TypeError or ValueError if it is not one."""
    return checked_int("the length of a map", length, least=least, most=sys.maxsize)


def _fitting(status: os.stat_result, path: str, length: int, offset: int) -> int:
    """The bytes to map; `length` if it is not 0. Raises if the file does not have them."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a directory cannot be mapped", path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no regular file: map it with mmap.mmap, and adopt the map")
    size = status.st_size
    if not size:
        raise ValueError(f"{path} is empty: there is nothing to map; os.truncate can extend it")
    if offset >= size:
        raise ValueError(f"{path} has {size} bytes: a map cannot start at offset {offset}")
    if offset + length > size:
        raise ValueError(
            f"{path} has {size} bytes: {length} bytes from offset {offset} reach beyond its end; "
            "os.truncate can extend it"
        )
    return length or size - offset
