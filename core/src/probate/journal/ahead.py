"""The log ahead of a store: what was written, and is in no transaction of the store yet.

For whoever writes while another waits: a transaction takes tens of microseconds, a copy into memory
that is mapped from a file hardly any, and what is in the page cache outlives a process as well. It
is a sequence of numbered rows, each of which counts from when its length is there. They are written
by marshal, which takes a fifth of the time of JSON, in a format that all versions of Python read.
"""

from __future__ import annotations

import json
import marshal
import mmap
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILE: Final = "ahead"

#: The most bytes of it: some thousand rows.
_SIZE: Final = 1 << 18

#: That of marshal, which does not change any more.
_FORMAT: Final = 2

#: One more than the length of a row, so that 0 is the end; without a row, its number is deleted.
_LENGTH: Final = struct.Struct("<I")
_NUMBER: Final = struct.Struct("<Q")
_HEAD: Final = _LENGTH.size + _NUMBER.size
_END: Final = bytes(_LENGTH.size)


@final
class AheadLog:
    """A new log in the folder of a store. For one thread at a time.

    Raises OSError where there is no room for it, or if there is one.
    """

    def __init__(self, folder: str) -> None:
        fd = os.open(_path(folder), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # What has no room on the disk would be a SIGBUS when it is written to.
            os.posix_fallocate(fd, 0, _SIZE)
            self._memory = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
        self._at = 0

    def append(self, number: int, row: dict[str, Any] | None) -> bool:
        """Write a row, or that there is none any more of its number; tell whether it had room.

        It is there for whoever comes after when this has returned.
        """
        written = b"" if row is None else marshal.dumps(row, _FORMAT)
        start = self._at + _LENGTH.size
        end = self._at + _HEAD + len(written)
        if end + len(_END) > _SIZE:
            return False
        self._memory[start : end + len(_END)] = _NUMBER.pack(number) + written + _END
        self._memory[self._at : start] = _LENGTH.pack(len(written) + 1)
        self._at = end
        return True

    def clear(self) -> None:
        """Begin anew: all of it is in the store."""
        self._memory[: len(_END)] = _END
        self._at = 0

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()


def read_ahead(folder: str) -> Iterator[tuple[int, bytes | None]]:
    """Yield the rows of the log in a folder, oldest first, as JSON; None for one that is deleted.

    There are none without a log. For its own user, since marshal trusts what it reads. Raises
    OSError, also if it is damaged in a way that can be told.
    """
    try:
        with open(_path(folder), "rb") as file:
            log = file.read(_SIZE)
    except FileNotFoundError:
        return
    at = 0
    while at + _HEAD <= len(log) and (length := _LENGTH.unpack_from(log, at)[0]):
        (number,) = _NUMBER.unpack_from(log, at + _LENGTH.size)
        at += _HEAD + length - 1
        try:
            # The store is its reader's own; another's is read in a process of that user.
            row = marshal.loads(log[at - length + 1 : at]) if length > 1 else None  # noqa: S302
            text = None if row is None else json.dumps(row).encode()
        except (EOFError, ValueError, TypeError, RecursionError) as error:
            raise OSError(f"the log in {folder} is damaged: {error}") from error
        yield number, text


def remove_ahead(folder: str) -> None:
    """Remove the log in a folder, all of which is in the store. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(_path(folder))  # noqa: PTH108  a string


def _path(folder: str) -> str:
    return os.path.join(folder, _FILE)  # noqa: PTH118  a string
