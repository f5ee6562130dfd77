"""The logs ahead of a store: what was written, and is in no transaction of the store yet.

A transaction takes tens of microseconds, a copy into memory that is mapped from a file hardly any,
and what is in the page cache outlives a process as well. There are two, so that one is appended to
while what the other has is moved into the store. Each is a sequence of numbered rows, in order by
a count over both. An append is one step of the interpreter, so that no thread and no signal handler
comes in between; a row of which a part was copied when its writer was killed is the last, and is
none. Rows are written by marshal, which takes a fifth of the time of JSON, in a format that all
versions of Python read.
"""

from __future__ import annotations

import errno
import itertools
import json
import mmap
import os
import struct
from contextlib import suppress
from marshal import dumps, loads
from typing import TYPE_CHECKING, Any, Final, final
from zlib import crc32

from probate.journal.handles import device_and_inode
from probate.journal.mounts import file_system_type
from probate.system.mapdescriptor import MapDescriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILES: Final = ("ahead-a", "ahead-b")

#: The bytes of one: some thousand rows. From so many on it is full, but for what is deleted.
_SIZE: Final = 1 << 18
FULL: Final = _SIZE - (1 << 15)

#: TMPFS_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC (include/uapi/linux/magic.h): what has room there
#: is written in its place. Others take a new one each time, for want of which a write to memory
#: is a SIGBUS.
_IN_PLACE: Final = {0x01021994, 0xEF53, 0x58465342}

#: That of marshal, which does not change any more.
_FORMAT: Final = 2

#: One more than the length of a row, so that 0 is the end, and a checksum of what follows: the
#: number, the count, and the row. Without a row, its number is deleted.
_HEAD: Final = struct.Struct("<II")
_WHICH: Final = struct.Struct("<QQ")

#: What memory is copied by, at least, at a time: so much is still zero in what was copied in part.
_HOLE: Final = bytes(8)

_counts: Final = itertools.count(1)


def record_of(number: int, row: dict[str, Any] | None) -> bytes:
    """Return what is appended for a row of JSON values; for None, it is deleted."""
    try:
        body = b"" if row is None else dumps(row, _FORMAT)
    except ValueError:
        # Of a class of its own, which is a value of JSON all the same.
        body = dumps(json.loads(as_json(row)), _FORMAT)
    summed = _WHICH.pack(number, next(_counts)) + body
    return _HEAD.pack(len(body) + 1, crc32(summed)) + summed


def as_json(row: dict[str, Any] | None) -> bytes:
    """Write a row as JSON."""
    # It takes as long to import as all that a run needs, and is needed when a log is full.
    from pydantic_core import to_json

    try:
        return to_json(row)
    except ValueError:
        # A path whose bytes are no text.
        return json.dumps(row).encode()


@final
class AheadLog:
    """A new log. For one thread at a time.

    Raises OSError where there is no room for it, or if there is one.
    """

    def __init__(self, path: str) -> None:
        self._path = os.fsencode(path)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if file_system_type(fd) not in _IN_PLACE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
            # What has no room on the disk would be a SIGBUS when it is written to.
            os.posix_fallocate(fd, 0, _SIZE)
            self._memory = mmap.mmap(fd, _SIZE)
            self._file = device_and_inode(fd)
        finally:
            os.close(fd)
        self._descriptor = MapDescriptor(self._memory)

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        return self._memory.tell()

    def append(self, record: bytes) -> bool:
        """Append a row; tell whether it had room.

        It is there for whoever comes after when this has returned.
        """
        try:
            self._memory.write(record)
        except ValueError:
            return False
        return True

    def clear(self) -> None:
        """Begin anew: all of it is in the store."""
        # At once, for who reads it.
        self._memory[: _HEAD.size] = bytes(_HEAD.size)
        nbytes = self._memory.tell()
        self._memory[:nbytes] = bytes(nbytes)
        self._memory.seek(0)

    def is_found(self) -> bool:
        """Tell whether it is at its path still. Raises OSError."""
        return device_and_inode(self._path) == self._file

    def close(self) -> None:
        """Let go of the file; by its number, if others have not closed that."""
        self._descriptor.let_go_if_lost(self._memory)
        self._memory.close()


def new_logs(folder: str) -> list[AheadLog]:
    """Make both logs in the folder of a store, which has none. Raises OSError, and makes none."""
    logs: list[AheadLog] = []
    try:
        for path in _paths(folder):
            logs.append(AheadLog(path))  # noqa: PERF401  those that there are, are closed
    except BaseException:
        for log in logs:
            log.close()
        remove_logs(folder)
        raise
    return logs


def read_ahead(folder: str) -> Iterator[tuple[int, bytes | None]]:
    """Yield the rows of the logs in a folder, oldest first, as JSON; None for one that is deleted.

    There are none without a log. For its own user, since marshal trusts what it reads. Raises
    OSError, also if one is damaged.
    """
    found = [each for path in _paths(folder) for each in _records(path)]
    for _, number, body in sorted(found):
        try:
            # The store is its reader's own; another's is read in a process of that user.
            yield number, json.dumps(loads(body)).encode() if body else None  # noqa: S302
        except (EOFError, ValueError, TypeError, RecursionError) as error:
            raise OSError(f"a log in {folder} is damaged: {error}") from error


def _records(path: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield count, number and text of each row that was appended as a whole."""
    try:
        with open(path, "rb") as file:
            log = file.read(_SIZE)
    except FileNotFoundError:
        return
    at = 0
    while at + _HEAD.size <= len(log) and (length := _HEAD.unpack_from(log, at)[0]):
        checksum = _HEAD.unpack_from(log, at)[1]
        summed = log[at + _HEAD.size : (at := at + _HEAD.size + _WHICH.size + length - 1)]
        if crc32(summed) != checksum:
            if _was_cut_off(summed) and not any(log[at:]):
                return
            raise OSError(f"{path} is damaged")
        number, count = _WHICH.unpack_from(summed)
        yield count, number, summed[_WHICH.size :]


def _was_cut_off(summed: bytes) -> bool:
    """Tell whether what is no row may be one that was copied in part; its last byte is no zero."""
    return not summed or not summed[-1] or _HOLE in summed[_WHICH.size :]


def remove_logs(folder: str) -> None:
    """Remove the logs in a folder, all of which is in the store. Raises OSError."""
    for path in _paths(folder):
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108  a string


def _paths(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in _FILES]  # noqa: PTH118  strings
