"""flock and open file description locks, as the kernel has them.

Both belong to the open file description, which duplicates and forked children share. POSIX locks
(lockf, F_SETLK) belong to the OS process instead: the owners within one host would not exclude
each other, and closing any descriptor of the file would drop them all (fcntl(2)).

Which locks a description holds is read from /proc/self/fdinfo (proc(5)), never remembered.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate import Outcome
from probate.system import identify, is_still, path_of
from probate_files.arguments import descriptor_of
from probate_files.entry import Entry, is_in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

#: `struct flock`: type, whence, start, length, pid; the pid is 0 for these locks (fcntl(2)).
_FLOCK: Final = "hhqqi0q"

#: `errno`s of a lock that somebody else holds; which one depends on the file system.
_HELD: Final = {errno.EACCES, errno.EAGAIN}


@final
class Range(NamedTuple):
    """Bytes of a file from `start` on; `length` 0 is to its end, however far that moves."""

    start: int
    length: int

    def overlaps(self, other: Range) -> bool:
        """Whether the two have a byte in common."""
        return (not other.length or self.start < other.start + other.length) and (
            not self.length or other.start < self.start + self.length
        )


@final
class FileLock(Entry):
    """An advisory lock on an open file, of the whole file (flock) or of a range of it.

    Made by `FileManager.lock` and `lock_range`, given back by `unlock`.
    """

    __slots__ = ("_identity", "file", "is_in_memory", "path", "range", "shared")

    def __init__(self, file: object, *, shared: bool, range: Range | None = None) -> None:  # noqa: A002  what it is
        fd = descriptor_of(file)
        #: The file object or descriptor that it was taken through.
        self.file = file
        self.shared = shared
        #: The bytes that it covers; None for the whole file (flock).
        self.range = range
        self.path = path_of(fd)
        try:
            self._identity = identify(fd)
        except OSError:
            raise self._closed() from None
        self.is_in_memory = is_in_memory(fd)

    def __repr__(self) -> str:
        how = "shared" if self.shared else "exclusive"
        if self.range is None:
            return f"{how} flock of {self.path!r} ({self._identity})"
        start, length = self.range
        end = f"{start + length - 1}" if length else "end"
        return f"{how} lock of {self.path!r}, bytes {start} to {end} ({self._identity})"

    @property
    def native(self) -> FileLock:
        """Itself: there is no other object."""
        return self

    @property
    def is_held(self) -> bool:
        """Whether the kernel says so. False once its file is closed."""
        fd = self._fd()
        return fd is not None and self.is_taken_on(fd)

    def is_through(self, fd: int) -> bool:
        """Whether it was taken through this descriptor."""
        return self._fd() == fd

    def check(self) -> int:
        """Return the descriptor number of its file. Raises ValueError if that is closed."""
        fd = self._fd()
        if fd is None:
            raise self._closed()
        return fd

    @contextlib.contextmanager
    def pinned(self) -> Iterator[int]:
        """A duplicate of its file's descriptor, whose number means nothing else meanwhile.

        Raises ValueError if the file is closed by then.
        """
        try:
            fd = fcntl.fcntl(self.check(), fcntl.F_DUPFD_CLOEXEC, 3)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise self._closed() from None
            raise
        try:
            if not is_still(fd, self._identity):
                raise self._closed()
            yield fd
        finally:
            os.close(fd)

    def is_taken_on(self, fd: int) -> bool:
        """Whether this open file description holds such a lock, by whomever it was taken."""
        held = locks_of(fd)
        if self.range is None:
            return None in held
        return any(each is not None and each.overlaps(self.range) for each in held)

    def try_to_take(self, fd: int) -> bool:
        """Take it if nobody else holds one in the way. Raises OSError."""
        try:
            if self.range is None:
                fcntl.flock(fd, fcntl.LOCK_NB | (fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX))
            else:
                self._set(fd, fcntl.F_RDLCK if self.shared else fcntl.F_WRLCK)
        except OSError as error:
            if error.errno not in _HELD:
                raise
            return False
        return True

    def give_up(self, fd: int) -> None:
        """Unlock it on this open file description. Raises OSError."""
        if self.range is None:
            fcntl.flock(fd, fcntl.LOCK_UN)
        else:
            self._set(fd, fcntl.F_UNLCK)

    def release(self) -> Outcome:
        """Unlock, for duplicates and forked children too; ALREADY_GONE if its file is closed."""
        fd = self._fd()
        if fd is None or not self.is_taken_on(fd):
            return Outcome.ALREADY_GONE
        self.give_up(fd)
        return Outcome.RELEASED

    def _closed(self) -> ValueError:
        return ValueError(f"closed meanwhile, so it cannot be locked: {self.path!r}")

    def _fd(self) -> int | None:
        try:
            fd = descriptor_of(self.file)
        except ValueError:
            return None
        return fd if is_still(fd, self._identity) else None

    def _set(self, fd: int, lock_type: int) -> None:
        start, length = self.range or (0, 0)
        fcntl.fcntl(
            fd,
            fcntl.F_OFD_SETLK,
            struct.pack(_FLOCK, lock_type, os.SEEK_SET, start, length, 0),
        )


def locks_of(fd: int) -> list[Range | None]:
    """The locks of an open file description: None for a flock, a range for each other.

    A line is "lock: 1: OFDLCK ADVISORY WRITE -1 fe:00:2146334 0 19", the last two being the first
    and the last byte, or EOF.
    """
    held: list[Range | None] = []
    with open(f"/proc/self/fdinfo/{fd}") as lines:
        for line in lines:
            words = line.split()
            if words[:1] != ["lock:"]:
                continue
            if words[2] == "FLOCK":
                held.append(None)
            elif words[2] == "OFDLCK":
                start, last = int(words[-2]), words[-1]
                held.append(Range(start, 0 if last == "EOF" else int(last) - start + 1))
    return held
