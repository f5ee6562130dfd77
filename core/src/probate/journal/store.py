"""Store: the rows of one host, kept so that they outlive it, whatever it dies of.

LMDB, an embedded store whose file is whole after each transaction, also when its writer is killed
in the midst of one. Nothing is forced onto the disk: what is in the page cache outlives a process,
and with a machine, most of what rows tell of has gone as well. A full disk is an error of the
write, not a SIGBUS, since the map is not written to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from probate.journal.handles import device_and_inode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: The most bytes that the rows of one host take: some 200,000.
_MOST_BYTES: Final = 1 << 26

#: What LMDB calls its file, which begins with two pages that are there before any row.
_FILE: Final = "data.mdb"
_BEGUN: Final = 8192

#: Standard error's number, the last that means the same to all programs.
_LAST_STREAM: Final = 2

#: What to do where a row cannot be written.
_MENDS: Final = {
    errno.ENOSPC: "make room, or name another folder by PROBATE_STATE",
    errno.EDQUOT: "make room, or name another folder by PROBATE_STATE",
    errno.EFBIG: "raise `ulimit -f`",
    # Of less than was to be written, LMDB says no more.
    errno.EIO: "make room, or raise `ulimit -f`",
}


#: Environments whose numbers are not theirs any more. They are never finalised.
_lost: Final[list[Any]] = []


@final
class LostNumberError(OSError):
    """Raised if somebody has closed the file of the rows, by its number, so that none is written.

    The number may be another file's by then.
    """

    def __init__(self, path: str) -> None:
        super().__init__(errno.EBADF, "somebody has closed the journal, by its number", path)


@contextmanager
def above_standard_streams() -> Iterator[None]:
    """Keep what is opened from getting the numbers 0 to 2, which others write to by these."""
    taken: list[int] = []
    try:
        while (fd := os.open(os.devnull, os.O_RDWR)) <= _LAST_STREAM:
            taken.append(fd)
        os.close(fd)
        yield
    finally:
        for fd in taken:
            os.close(fd)


def _is_read_by(fd: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR


def _key(number: int) -> bytes:
    return number.to_bytes(8, "big")


@final
class Store:
    """Numbered rows in a folder, for one OS process to write. Thread-safe.

    Raises OSError for a folder that cannot be used, or a disk that is full.
    """

    def __init__(self, folder: str) -> None:
        import lmdb

        self._error: type[Exception] = lmdb.Error
        self._put: Any = lmdb.Transaction.put
        self._delete: Any = lmdb.Transaction.delete
        # No locks of LMDB's own: there is one writer, and who reads it is a host's successor.
        try:
            with above_standard_streams():
                self._environment: Any = lmdb.open(
                    folder, map_size=_MOST_BYTES, sync=False, metasync=False, lock=False, mode=0o600
                )
        except lmdb.Error as error:
            raise OSError(f"no store can be made in {folder}: {error}") from error
        self._lock = threading.RLock()
        # Of the thread that has the lock: a signal handler may write in the midst of a write.
        self._transaction: Any = None
        self._path = os.path.join(folder, _FILE)  # noqa: PTH118  a string
        self._path_bytes = os.fsencode(self._path)
        # No other file has them while it is open.
        self._file = device_and_inode(self._path_bytes)
        # LMDB tells nobody which numbers it has. By that which reads as well, it writes; the other
        # is for those whose writes are to be on the disk.
        open_ones = map(int, os.listdir("/proc/self/fd"))  # noqa: PTH208  names are what is needed
        self._numbers = [each for each in open_ones if self._is_at(each)]
        self._number = next(filter(_is_read_by, self._numbers), -1)

    def write_all(self, changes: Mapping[int, bytes | None]) -> None:
        """Write rows, and delete those for which there is None: all of it, or nothing.

        They are there for whoever comes after when this has returned. Raises LostNumberError.
        """
        self._write(self._change, changes)

    def rows(self) -> list[tuple[int, bytes]]:
        """Return all rows, by number."""
        with self._environment.begin() as transaction:
            return _rows_of(transaction)

    def is_found(self) -> bool:
        """Tell whether its file is at its path still: others may have removed or covered it."""
        try:
            return device_and_inode(self._path_bytes) == self._file
        except PermissionError:
            # This process is another user by now (setuid(2)), and its reaper, which finds it, not.
            return True
        except OSError:
            return False

    def is_open(self) -> bool:
        """Tell whether its numbers still mean its file: others may have closed one."""
        return self._is_at(self._number) and all(map(self._is_at, self._numbers))

    def copy_to(self, folder: str, changes: Mapping[int, bytes | None]) -> Store:
        """Return a new store with all rows as `write_all` would leave them: with all, or none.

        Also if the file has gone. Raises OSError.
        """

        def copy(transaction: Any) -> None:
            transaction.cursor().putmulti(rows.cursor())
            self._change(transaction, changes)

        # By the map: LMDB's own copy asks the number how large the file is.
        with self._lock, self._environment.begin() as rows:
            new = Store(folder)
            try:
                new._write(copy)
            except BaseException:
                new.close()
                raise
        return new

    def forget_parent(self) -> None:
        """Write nothing, in a forked child: not what is under way, if that was forked in it."""
        self._lock = threading.RLock()
        self._number = -1

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self.is_open():
                self._environment.close()
            else:
                # It would close what is another's.
                _lost.append(self._environment)

    def _is_at(self, number: int) -> bool:
        try:
            return device_and_inode(number) == self._file
        except OSError:
            return False

    def _change(self, transaction: Any, changes: Mapping[int, bytes | None]) -> None:
        for number, row in changes.items():
            if row is None:
                self._delete(transaction, _key(number))
            else:
                self._put(transaction, _key(number), row)

    def _write(self, act: Callable[..., object], *arguments: object) -> None:
        try:
            with self._lock:
                if not self._is_at(self._number):
                    # LMDB would write into whatever has the number now.
                    raise LostNumberError(self._path)
                if self._transaction is not None:
                    act(self._transaction, *arguments)
                    return
                self._transaction = transaction = self._environment.begin(write=True)
                try:
                    act(transaction, *arguments)
                finally:
                    self._transaction = None
                    if self._number < 0:
                        transaction.abort()
                        raise LostNumberError(self._path)
                    transaction.commit()
        except self._error as error:
            # What could not be written is why it could not be committed.
            first = error.__context__ if isinstance(error.__context__, self._error) else error
            raise _explained(first, self._environment.path()) from error


def _rows_of(transaction: Any) -> list[tuple[int, bytes]]:
    return [(int.from_bytes(key, "big"), bytes(row)) for key, row in transaction.cursor()]


def _explained(error: Exception, folder: str) -> OSError:
    """Say what cannot be written, with the errno that LMDB names only by its text."""
    for number, mend in _MENDS.items():
        if os.strerror(number) in str(error):
            return OSError(number, f"{os.strerror(number)} for the journal: {mend}", folder)
    if "MDB_MAP_FULL" in str(error):
        most = f"the rows of one host take at most {_MOST_BYTES >> 20} MiB"
        return OSError(errno.ENOSPC, f"no room in the journal: {most}", folder)
    return OSError(f"the journal cannot be written: {error}")


def stored_rows(folder: str) -> list[tuple[int, bytes]]:
    """Return all rows of a store that nobody writes, by number; see `read_rows`."""
    import lmdb

    try:
        nbytes = (Path(folder) / _FILE).stat().st_size
    except FileNotFoundError:
        return []
    if nbytes < _BEGUN:
        return []
    try:
        # No more address space than it takes: who reads may have been given little.
        with (
            lmdb.open(folder, map_size=nbytes, readonly=True, lock=False) as environment,
            environment.begin() as transaction,
        ):
            return _rows_of(transaction)
    except lmdb.MemoryError as error:
        raise MemoryError(str(error)) from error
    except lmdb.Error as error:
        raise OSError(f"the store in {folder} cannot be read: {error}") from error
