"""What the tree of a run has made by name, in the journal: noted before, and looked at again after.

The store is the front's to those who sweep: it is settled by others only when the front is dead,
and while a keeper lives that has its lock, not even then.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import json
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

from probate.journal.folders import HEADER, LOCK, make_host_folder, read_json, remove_host_folder
from probate.journal.handles import seconds_since_boot
from probate.journal.header import header_of
from probate.journal.loggedstore import LoggedStore, read_rows
from probate.journal.made import has_surely_gone, identity_of, is_there
from probate.journal.notice import FOLDERS, Notice
from probate.run.deletions import Deletions
from probate.run.processnotices import OF_PROCESSES, may_be_there
from probate.run.row import RunRow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Seconds after a call was let go that its thing is looked for: it may be late on a busy machine.
_LOOKS: Final = (0.02, 0.2, 2.0)

#: Those that are due within so many seconds are looked for together: it takes less than one by one.
_TOGETHER: Final = 0.016

#: Seconds that the lock of a store gets to be free.
_LOCKING: Final = 5.0

#: How many are looked for before it is seen whether somebody waits for an answer.
_AT_A_TIME: Final = 16

#: Calls that make what has a path.
_BY_PATH: Final = ("open", "mkdir", "mknod", "link", "bind")

#: At so many rows it is looked what has gone again, and whenever they have doubled.
_MANY: Final = 512

#: Of so many threads it is known which call was their last.
_MOST_THREADS: Final = 4096

#: How many folders in a temporary one are noted; if there are more, it is left.
_MOST_WITHIN: Final = 256


@final
class RunRows:
    """The rows of one run. Thread-safe.

    Without a store, after `open` has failed or was not called, they are in memory alone.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._rows: dict[int, RunRow] = {}
        self._calls = itertools.count(1)
        #: The last call of each thread, and the number of its row: those before it have returned.
        self._last_calls: dict[int, tuple[int, int]] = {}
        #: Those of what has a name that only one thing has.
        self._by_name: dict[str, int] = {}
        self._deletions = Deletions()
        #: When to look, and for which.
        self._due: list[tuple[float, int]] = []
        self._many = _MANY
        self._store: LoggedStore | None = None
        self._owners: dict[int, dict[str, Any]] = {}
        self._lock_fd = -1
        self.folder: Path | None = None
        #: What the store says of the front.
        self.header: dict[str, Any] = {}
        #: Why rows cannot be written; nothing if they can.
        self.problem = ""

    def open(self, front: int) -> None:
        """Make a store for a front, which outlives this process. Raises OSError."""
        self.header = header_of(front)
        folder = make_host_folder(self.header)
        try:
            self._use(folder)
        except BaseException:
            remove_host_folder(folder)
            raise

    def take_over(self, folder: Path) -> None:
        """Go on with the store of a keeper that has died. Raises OSError, ValueError."""
        # Before anything is done: no later keeper would do better with what cannot be read.
        header = read_json(folder / HEADER)
        found = [(number, json.loads(row)) for number, row in read_rows(str(folder))]
        try:
            owners = {number: row for number, row in found if "process" in row}
            rows = {
                number: RunRow(row["owner"], Notice.from_row(row))
                for number, row in found
                if number not in owners
            }
            by_name = {
                row.notice.name: number
                for number, row in rows.items()
                if "born_since" in row.notice.identity or row.notice.call == "mq_open"
            }
        except (LookupError, TypeError) as error:
            raise ValueError(f"its rows cannot be read: {error}") from error
        self._use(folder)
        self.header = header
        self._owners, self._rows, self._by_name = owners, rows, by_name
        self._numbers = itertools.count(max((number for number, _ in found), default=0) + 1)
        for number, row in rows.items():
            self._watch(row.notice)
            self._look_later(number)

    def owner(self, name: str, key: str) -> int:
        """Return the number of the row of the command that has this key; it is noted if new."""
        with self._lock:
            for number, row in self._owners.items():
                if row["process"]["key"] == key:
                    return number
            number = next(self._numbers)
            self._owners[number] = {"process": {"pid": number, "name": name, "key": key}}
            self._put(number, self._owners[number])
            return number

    def hand_over(self, owner: int, to: int) -> None:
        """Have all that a command has made be another's."""
        with self._lock:
            for number, row in self._rows.items():
                if row.owner == owner:
                    row.owner = to
                    self._write(number, row)

    def mark_ended(self, owner: int) -> None:
        """Note that a command has ended by itself: its data is left, whoever settles."""
        with self._lock:
            self._owners[owner]["ended"] = True
            self._put(owner, self._owners[owner])

    def has_things(self, *, older_than: float = 0.0) -> bool:
        """Tell whether anything is there that was made, but processes, so many seconds ago."""
        since = time.monotonic() - older_than
        with self._lock:
            for row in self._rows.values():
                if row.notice.call not in OF_PROCESSES and row.since <= since:
                    if is_there(row.notice):
                        return True
                    if row.notice.state == "confirmed":
                        # Else all that a build has made would be looked for, again and again.
                        row.since = float("inf")
            return False

    def has_command(self, owner: int) -> bool:
        """Tell whether it is noted which OS process a command is."""
        with self._lock:
            rows = self._rows.values()
            return any(row.owner == owner and row.notice.call == "exec" for row in rows)

    def intend(self, owner: int, notice: Notice, *, tid: int = 0, is_noted: bool = True) -> None:
        """Note what is about to be made; or what was, if it is known for certain.

        `tid` is the thread that calls. What is not to be given back by anybody is not noted in the
        store.
        """
        with self._lock:
            call = next(self._calls)
            if len(self._last_calls) > _MOST_THREADS:
                # Those are looked for as often as of threads that make nothing more.
                self._last_calls.clear()
            # What was taken away before is not what is about to be made.
            self._note_gone()
            is_new = notice.state == "intent"
            number = self._number_of_gone(notice.name, tid) if is_new else 0
            before = self._rows.get(number)
            if before is not None and before.is_noted and not is_noted:
                # Else it would stand in the store still.
                self._drop(number)
                before = None
            row = RunRow(owner, notice, tid=tid, call=call, is_noted=is_noted)
            if before is None:
                number = next(self._numbers)
            else:
                self._by_name.pop(before.notice.name, None)
                row.is_waiting = before.is_waiting
            self._last_calls[tid] = call, number
            self._rows[number] = row
            self._write(number, row)
            if is_new:
                self._by_name[notice.name] = number
                self._watch(notice)
                self._look_later(number)
            if len(self._rows) > self._many:
                self.drop_gone()
                self._many = max(_MANY, 2 * len(self._rows))

    def note_within(self, notice: Notice) -> None:
        """Note a folder that is about to be made in a temporary one, if that is of the tree."""
        with self._lock:
            number = self._by_name.get(notice.folder, 0)
            row = self._rows.get(number)
            if row is None or FOLDERS not in row.notice.identity:
                return
            known = row.notice.identity[FOLDERS]
            if len(known) < _MOST_WITHIN and notice.basename not in known:
                identity = {**row.notice.identity, FOLDERS: [*known, notice.basename]}
                row.notice = row.notice._replace(identity=identity)
                self._write(number, row)

    @property
    def due(self) -> float:
        """When something is to be looked for, by time.monotonic(); infinity for never."""
        return self._due[0][0] if self._due else float("inf")

    def look(self) -> None:
        """Look for some of what is due."""
        with self._lock:
            self._note_gone()
            now = time.monotonic()
            count = 0
            while self._due and self._due[0][0] <= now and count < _AT_A_TIME:
                _, number = heapq.heappop(self._due)
                count += 1
                if (row := self._rows.get(number)) is None:
                    continue
                row.is_waiting = False
                if row.notice.state == "confirmed":
                    continue
                if row.since + _LOOKS[row.looks] > now:
                    # Its name has been given again since.
                    self._look_later(number)
                else:
                    self._confirm(number, row)

    def look_last(self, owner: int) -> None:
        """Look for all of a command that is not confirmed yet: none of its calls is under way."""
        with self._lock:
            self._note_gone()
            for number, row in list(self._rows.items()):
                # Others' may be made yet.
                if row.owner == owner and row.notice.state != "confirmed":
                    self._confirm(number, row, is_last=True)

    def drop_gone(self) -> None:
        """Let go of what has gone again."""
        with self._lock:
            for number, row in list(self._rows.items()):
                if row.notice.state == "confirmed" and not may_be_there(row.notice):
                    self._drop(number)

    def of(self, owner: int) -> list[tuple[int, dict[str, Any]]]:
        """Return the row of a command, and those of things, not of processes, that it has made."""
        with self._lock:
            return [
                (owner, self._owners[owner]),
                *(
                    (number, row.notice.to_row(owner, 0.0))
                    for number, row in self._rows.items()
                    if row.owner == owner and row.notice.call not in OF_PROCESSES
                ),
            ]

    def drop(self, numbers: Iterable[int]) -> None:
        """Let go of rows that are settled, or that nobody settles."""
        with self._lock:
            for number in numbers:
                self._drop(number)

    def drop_processes(self, owner: int) -> None:
        """Let go of the rows of a command's processes, which have ended."""
        with self._lock:
            for number, row in list(self._rows.items()):
                if row.owner == owner and row.notice.call in OF_PROCESSES:
                    self._drop(number)

    def close(self) -> None:
        """Let go of the store: it is removed if nothing is left, or else a sweep tries again."""
        self._deletions.close()
        if self._store is not None and self.folder is not None:
            self._store.close()
            if not self._rows:
                remove_host_folder(self.folder)

    # -- inside --------------------------------------------------------------

    def _use(self, folder: Path) -> None:
        self._lock_fd = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        over = time.monotonic() + _LOCKING
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # A child of the keeper before has it, and ends.
                if time.monotonic() > over:
                    raise
                time.sleep(_LOOKS[0])
        self._store = LoggedStore(str(folder))
        self.folder = folder

    def _number_of_gone(self, name: str, tid: int) -> int:
        """Return the number of a row of what has gone, for what is made next, or 0."""
        # What had the name before has gone: the name was free.
        if number := self._by_name.get(name, 0):
            return number
        # What the thread's call before made: it takes less to see now than to let go of it later.
        number = self._last_calls.get(tid, (0, 0))[1]
        row = self._rows.get(number)
        if row is None or row.tid != tid or row.notice.state != "intent":
            return 0
        return number if row.is_gone or has_surely_gone(row.notice) else 0

    def _look_later(self, number: int) -> None:
        row = self._rows[number]
        if not row.is_waiting:
            row.is_waiting = True
            due = row.since + _LOOKS[row.looks]
            heapq.heappush(self._due, (due - due % _TOGETHER + _TOGETHER, number))

    def _watch(self, notice: Notice) -> None:
        if notice.call in _BY_PATH:
            self._deletions.watch(notice.folder)

    def _note_gone(self) -> None:
        for path in self._deletions.gone():
            if (row := self._rows.get(self._by_name.get(path, 0))) is not None:
                row.is_gone = True

    def _confirm(self, number: int, row: RunRow, *, is_last: bool = False) -> None:
        if row.is_gone:
            self._drop(number)
            return
        try:
            found = identity_of(row.notice)
        except OSError:
            # It stays as it is: whoever settles it says why it cannot be looked at.
            return
        row.looks += 1
        if found:
            identity = {**row.notice.identity, **found}
            row.notice = row.notice._replace(identity=identity, state="confirmed")
            self._write(number, row)
        elif found is None and row.looks < len(_LOOKS) and not is_last and not self._is_over(row):
            self._look_later(number)
        else:
            self._drop(number)

    def _is_over(self, row: RunRow) -> bool:
        """Tell whether a call has returned: the thread that made it has made another."""
        return self._last_calls.get(row.tid, (0, 0))[0] > row.call > 0

    def _drop(self, number: int) -> None:
        row = self._rows.pop(number, None)
        if row is None:
            return
        if self._by_name.get(row.notice.name) == number:
            del self._by_name[row.notice.name]
        if self._store is not None and row.is_noted:
            with suppress(OSError):
                self._store.delete(number)

    def _write(self, number: int, row: RunRow) -> None:
        if row.is_noted:
            self._put(number, row.notice.to_row(row.owner, seconds_since_boot()))

    def _put(self, number: int, row: dict[str, Any]) -> None:
        if self._store is not None:
            try:
                self._store.write(number, row)
            except OSError as error:
                self.problem = str(error)
