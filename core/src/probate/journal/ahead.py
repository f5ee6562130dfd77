"""The logs ahead of a store: what was written, and is in no transaction of the store yet.

A transaction takes tens of microseconds, a copy into memory that is mapped from a file hardly any,
and what is in the page cache outlives a process as well. There are two, so that one is appended to
while what the other has is moved into the store; in one file, so that both begin to count at once,
and cease to. Each is a sequence of numbered rows, in order by a count over both. An append is one
step of the interpreter, so that no thread and no signal handler comes in between; a row of which a
part was copied when its writer was killed is the last, and is none. Rows are written by marshal,
which takes a fifth of the time of JSON, in a format that all versions of Python read.
"""

from __future__ import annotations

import errno
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
    from collections.abc import Callable, Iterator

_FILE: Final = "ahead"

#: What it is called before it has all its bytes, without which it is damaged.
_NEW: Final = "ahead.new"

#: The bytes of one: some thousand rows. From so many on it is full, but for what is deleted.
_SIZE: Final = 1 << 18
_FULL: Final = _SIZE - (1 << 15)

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

#: What memory is copied by, at least, at a time: where each row has so many bytes, or a multiple,
#: so much is still zero in what was copied in part. What marshal ends with is none of it.
_HOLE: Final = bytes(8)
_FILLING: Final = tuple(b"." * (-length % len(_HOLE)) for length in range(len(_HOLE)))


def body_of(row: dict[str, Any] | None) -> bytes:
    """Return what a record has of a row of JSON values; nothing if it is deleted."""
    if row is None:
        return b""
    try:
        body = dumps(row, _FORMAT)
    except ValueError:
        # Of a class of its own, which is a value of JSON all the same.
        body = dumps(json.loads(as_json(row)), _FORMAT)
    return body + _FILLING[len(body) % len(_HOLE)]


def record_of(number: int, count: int, body: bytes) -> bytes:
    """Return what is appended for a row."""
    summed = _WHICH.pack(number, count) + body
    return _HEAD.pack(len(body) + 1, crc32(summed)) + summed


def as_json(row: Any, default: Callable[[object], object] | None = None) -> bytes:
    """Write a row as JSON, by `default` what is none."""
    # It takes as long to import as all that a run needs, and is needed when a log is full.
    from pydantic_core import to_json

    try:
        return to_json(row)
    except ValueError:
        # A path whose bytes are no text.
        return json.dumps(row, default=default).encode()


@final
class AheadLog:
    """A log, in a file that has nothing in its place. For one thread at a time.

    Raises OSError.
    """

    def __init__(self, fd: int, place: int, path: str) -> None:
        self._path = os.fsencode(path)
        self._memory = mmap.mmap(fd, _SIZE, offset=place)
        self._file = device_and_inode(fd)
        self._descriptor = MapDescriptor(self._memory)

    @property
    def nbytes(self) -> int:
        """How many bytes it has; none if it is closed."""
        return 0 if self._memory.closed else self._memory.tell()

    def append(self, record: bytes, *, may_fill: bool) -> bool:
        """Append a row; tell whether it had room, which it may fill; none has one that is closed.

        It is there for whoever comes after when this has returned.
        """
        try:
            if not may_fill and self._memory.tell() + len(record) > _FULL:
                return False
            self._memory.write(record)
        except ValueError:
            return False
        return True

    def clear(self) -> None:
        """Begin anew: all of it is in the store."""
        # A signal handler may close it in the midst of this.
        with suppress(ValueError):
            # At once, for who reads it.
            self._memory[: _HEAD.size] = bytes(_HEAD.size)
            nbytes = self._memory.tell()
            self._memory[:nbytes] = bytes(nbytes)
            self._memory.seek(0)

    def is_found(self) -> bool:
        """Tell whether it is at its path still. Raises OSError."""
        return device_and_inode(self._path) == self._file

    def forget_parent(self) -> None:
        """Have no memory, in a forked child, which shares it: nor where that is in a write."""
        self._inherited, self._memory = self._memory, mmap.mmap(-1, mmap.PAGESIZE)
        self._memory.close()

    def close(self) -> None:
        """Let go of the file; by its number, if others have not closed that."""
        self._descriptor.let_go_if_lost(self._memory)
        self._memory.close()


def new_logs(folder: str) -> list[AheadLog]:
    """Make both logs in the folder of a store, instead of others, all of which is in the store.

    Raises OSError where there is no room for them; the others are there still.
    """
    path, new = _paths(folder)
    logs: list[AheadLog] = []
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if file_system_type(fd) not in _IN_PLACE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
        # What has no room on the disk would be a SIGBUS when it is written to.
        os.posix_fallocate(fd, 0, 2 * _SIZE)
        for place in (0, _SIZE):
            logs.append(AheadLog(fd, place, path))  # noqa: PERF401  those that there are, are closed
        os.rename(new, path)  # noqa: PTH104  strings
    except BaseException:
        for log in logs:
            log.close()
        raise
    finally:
        os.close(fd)
    return logs


def read_ahead(folder: str) -> Iterator[tuple[int, bytes | None]]:
    """Yield the rows of the logs in a folder, oldest first, as JSON; None for one that is deleted.

    There are none without a log. For its own user, since marshal trusts what it reads. Raises
    OSError, also if one is damaged.
    """
    path = _paths(folder)[0]
    try:
        with open(path, "rb") as file:
            logs = file.read(2 * _SIZE)
    except FileNotFoundError:
        return
    if len(logs) < 2 * _SIZE:
        # What is missing may have deleted what is in the store.
        raise OSError(f"{path} is damaged: it was cut off")
    found = [each for place in (0, _SIZE) for each in _records(logs[place : place + _SIZE], path)]
    for _, number, body in sorted(found):
        try:
            # The store is its reader's own; another's is read in a process of that user.
            yield number, as_json(loads(body), repr) if body else None  # noqa: S302
        except (EOFError, ValueError, TypeError, RecursionError) as error:
            raise OSError(f"{path} is damaged: {error}") from error


def _records(log: bytes, path: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield count, number and text of each row that was appended as a whole."""
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
    step = len(_HOLE)
    pieces = {summed[at : at + step] for at in range(0, len(summed), step)}
    return not summed or not summed[-1] or _HOLE in pieces


def remove_logs(folder: str) -> None:
    """Remove the logs in a folder, all of which is in the store. Raises OSError."""
    for path in _paths(folder):
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108  a string


def _paths(folder: str) -> tuple[str, str]:
    return os.path.join(folder, _FILE), os.path.join(folder, _NEW)  # noqa: PTH118  strings
