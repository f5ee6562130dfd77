"""LoggedStore: a store that is written to by its logs, so that a write takes next to nothing."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, final

from probate.journal.ahead import as_json, body_of, new_logs, read_ahead, record_of, remove_logs
from probate.journal.handles import folder_stamp
from probate.journal.store import Store, above_standard_streams, stored_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from probate.journal.ahead import AheadLog
    from probate.journal.handles import FolderStamp

#: Seconds in which several changes of a folder may have one time: before Linux 6.13 some
#: milliseconds.
_ONE_TIME: Final = 1.0

#: Stands for a row of which the logs have nothing.
_UNKNOWN: Final[dict[str, Any]] = {}


@final
class LoggedStore:
    """A store with logs before it. Thread-safe.

    Rows that were deleted again before a log is full are never written to the store. Raises
    OSError as `Store` does; without room for logs, each row is a transaction. `store` is one that
    is in the folder already.
    """

    def __init__(self, folder: str, store: Store | None = None) -> None:
        self._store: Final = Store(folder) if store is None else store
        self._folder: Final = os.fsencode(folder)
        #: Of the folder, when all files were found in it.
        self._stamp: FolderStamp | None = None
        # Reentrant: a signal handler may write in the midst of a write.
        self._lock = threading.RLock()
        self._count = 0
        #: What the logs have, and the store has not.
        self._ahead: dict[int, dict[str, Any] | None] = {}
        #: The one that is appended to, and the other; none where there is no room for them.
        self._logs: list[AheadLog] = []
        self._is_turning = False
        #: Rows that whoever writes next, or has begun to, deletes.
        self._due: set[int] = set()
        self._store.write_all(dict(read_ahead(folder)))
        with suppress(OSError), above_standard_streams():
            self._logs = new_logs(folder)
        if not self._logs:
            # What stands there would count again, as newer than the store.
            remove_logs(folder)

    def write(self, number: int, row: dict[str, Any]) -> None:
        """Write a row of JSON values; it is there for whoever comes after when this has returned.

        Raises OSError, LostNumberError included.
        """
        try:
            with self._lock:
                self._write(number, row)
        finally:
            self._tidy()

    def delete(self, number: int) -> None:
        """Delete a row, if there is one of that number; or have it deleted after another's write.

        That is not waited for: a signal handler may have fallen into it that waits for this one.
        Until then the row tells of something that is gone. Raises OSError; it is tried again then.
        """
        self._due.add(number)
        self._delete_due()

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows."""
        self._tidy()
        with self._lock:
            found = {number: json.loads(row) for number, row in self._store.rows()}
            found |= self._ahead
        return [row for row in found.values() if row is not None]

    def is_found(self) -> bool:
        """Tell whether its files are at their paths still: others may have removed or covered them.

        Whoever removes one changes its folder, which is what is looked at.
        """
        try:
            stamp = folder_stamp(self._folder)
            if stamp == self._stamp:
                return True
            is_found = self._store.is_found() and all(log.is_found() for log in self._logs)
        except PermissionError:
            # This process is another user by now (setuid(2)), and its reaper, which finds it, not.
            return True
        except OSError:
            return False
        if is_found and time.time() - stamp.changed > _ONE_TIME:
            self._stamp = stamp
        return is_found

    def is_there(self) -> bool:
        """Tell whether its files are found, and open: others may have closed one by its number."""
        return self._store.is_open() and self.is_found()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have other threads wait with their writes, such as to be told that it is closed."""
        with self._lock:
            yield

    def copy_to(self, folder: str) -> LoggedStore:
        """Return a new store with all rows, also if the files have gone. Raises OSError."""
        with self._lock:
            store = self._store.copy_to(folder, _as_stored(self._ahead))
            try:
                new = LoggedStore(folder, store)
            except BaseException:
                store.close()
                raise
        new._due = self._due
        new._tidy()
        return new

    def forget_parent(self) -> None:
        """Write nothing, in a forked child: not what a write goes on with, if one forks in it."""
        self._lock = threading.RLock()
        for log in self._logs:
            log.forget_parent()
        self._store.forget_parent()

    def close(self) -> None:
        """Let go of the files: what is in the logs is read from there."""
        with self._lock:
            for log in self._logs:
                log.close()
            self._store.close()

    # -- inside --------------------------------------------------------------

    def _write(self, number: int, row: dict[str, Any] | None) -> None:
        body = body_of(row)
        if not self._logs:
            self._store.write_all(_as_stored({number: row}))
            return
        before = self._ahead.get(number, _UNKNOWN)
        # First, so that it is in the store as well when a log has been emptied meanwhile; and
        # without a call, in which a signal handler comes: the later row has the higher count.
        self._count, self._ahead[number] = (count := self._count + 1), row
        try:
            record = record_of(number, count, body)
            # What is deleted has room in a full one, and so has what cannot wait.
            may_fill = row is None or self._is_turning
            if not self._logs[0].append(record, may_fill=may_fill):
                self._turn()
        except OSError:
            if before is _UNKNOWN:
                self._ahead.pop(number, None)
            else:
                self._ahead[number] = before
            raise

    def _delete_due(self) -> None:
        # Whoever has the lock looks once more when it is free again.
        while self._due and self._lock.acquire(blocking=False):
            try:
                for number in tuple(self._due):
                    self._write(number, None)
                    self._due.discard(number)
            finally:
                self._lock.release()

    def _tidy(self) -> None:
        """Delete what is due, for others, whom it concerns no more if it cannot be done now."""
        if self._due:
            with suppress(OSError):
                self._delete_due()

    def _turn(self) -> None:
        """Have the store have all that the logs have, and the other one be appended to.

        Where all of them are closed, the store says so.

        Each is cleared while nobody appends to it, and the older one first: a row that it has may
        be deleted in the other.
        """
        if self._is_turning:
            # A signal handler, in the midst of it, on a disk that is full.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._folder)
        self._is_turning = True
        try:
            latest, other = self._logs
            if other.nbytes:
                # It could not be cleared at its turn.
                self._empty()
                other.clear()
            self._logs = [other, latest]
            self._empty()
            latest.clear()
        finally:
            self._is_turning = False

    def _empty(self) -> None:
        """Have the store have all rows."""
        changes = dict(self._ahead)
        self._store.write_all(_as_stored(changes))
        for number, row in changes.items():
            found = self._ahead.pop(number, row)
            if found is not row:
                # A signal handler has written it since.
                self._ahead.setdefault(number, found)


def read_rows(folder: str) -> list[tuple[int, bytes]]:
    """Return all rows of a store that nobody writes, by number; also those of the logs before it.

    None are there if its host died as it made it. For a process that may die of it: a file that was
    cut off is a SIGBUS in whoever maps it. Raises OSError if it is damaged in a way that can be
    told, MemoryError.
    """
    rows = dict(stored_rows(folder))
    for number, row in read_ahead(folder):
        if row is None:
            rows.pop(number, None)
        else:
            rows[number] = row
    return sorted(rows.items())


def _as_stored(changes: Mapping[int, dict[str, Any] | None]) -> dict[int, bytes | None]:
    return {number: None if row is None else as_json(row, repr) for number, row in changes.items()}
