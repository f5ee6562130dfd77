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
import shutil
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate.journal.folders import HEADER, LOCK, make_host_folder, read_json, remove_host_folder
from probate.journal.handles import pid_namespace, seconds_since_boot
from probate.journal.header import header_of
from probate.journal.notice import NOTICE, Notice
from probate.journal.store import Store, read_rows
from probate.run.made import identity_of, is_there
from probate.system.osprocess import start_time_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Seconds after a call was let go that its thing is looked for: it may be late on a busy machine.
_LOOKS: Final = (0.002, 0.02, 0.2, 2.0)

#: At so many rows it is looked what has gone again, and whenever they have doubled.
_MANY: Final = 512

#: Calls after which nothing is made that would be looked for.
_OF_PROCESSES: Final = ("exec", "setsid")


@final
class _Due(NamedTuple):
    at: float
    number: int
    look: int


@final
class RunRows:
    """The rows of one run. Thread-safe.

    Without a store, after `open` has failed or was not called, they are in memory alone.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._rows: dict[int, tuple[int, Notice]] = {}
        self._due: list[_Due] = []
        self._many = _MANY
        self._store: Store | None = None
        self._owners: dict[int, dict[str, Any]] = {}
        self._lock_fd = -1
        self.folder: Path | None = None
        #: What the store says of the front.
        self.header: dict[str, Any] = {}
        self._unnoted: set[int] = set()
        #: Why rows cannot be written; nothing if they can.
        self.problem = ""

    def __len__(self) -> int:
        return len(self._rows)

    def open(self, front: int) -> None:
        """Make a store for a front, which outlives this process. Raises OSError."""
        self.header = header_of(front)
        folder = make_host_folder(self.header)
        try:
            self._use(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def take_over(self, folder: Path) -> int:
        """Go on with the store of a keeper that has died; return the number of the command's row.

        Raises OSError, ValueError.
        """
        found = [(number, json.loads(row)) for number, row in read_rows(str(folder))]
        self._use(folder)
        for number, row in found:
            if NOTICE in row:
                self._rows[number] = row["owner"], Notice.from_row(row)
                self._look_later(number)
            else:
                self._owners[number] = row
        self._numbers = itertools.count(max((number for number, _ in found), default=0) + 1)
        self.header = read_json(folder / HEADER)
        return min(self._owners)

    def add_owner(self, name: str) -> int:
        """Note a command; return the number of its row."""
        number = next(self._numbers)
        self._owners[number] = {"process": {"pid": number, "name": name}}
        self._put(number, self._owners[number])
        return number

    def mark_ended(self, owner: int) -> None:
        """Note that a command has ended by itself: its data is left, whoever settles."""
        row = self._owners.setdefault(owner, {"process": {"pid": owner}})
        row["ended"] = True
        self._put(owner, row)

    def has_command(self, owner: int) -> bool:
        """Tell whether it is noted which OS process a command is."""
        return any(each == owner and notice.call == "exec" for each, notice in self._rows.values())

    def intend(self, owner: int, notice: Notice, *, is_noted: bool = True) -> None:
        """Note what is about to be made; or what was, if it is known for certain.

        What is not to be given back by anybody is not noted in the store.
        """
        with self._lock:
            number = next(self._numbers)
            self._rows[number] = owner, notice
            if not is_noted:
                self._unnoted.add(number)
            self._write(number)
            if notice.state == "intent":
                self._look_later(number)
            if len(self._rows) > self._many:
                self.drop_gone()
                self._many = max(_MANY, 2 * len(self._rows))

    @property
    def due(self) -> float:
        """When something is to be looked for, by time.monotonic(); infinity for never."""
        return self._due[0].at if self._due else float("inf")

    def look(self, *, at_all: bool = False) -> None:
        """Look for what is due, or for one of it; or for all that is not confirmed yet."""
        with self._lock:
            now = time.monotonic()
            while self._due and (at_all or self._due[0].at <= now):
                due = heapq.heappop(self._due)
                if due.number in self._rows:
                    self._confirm(due, is_last=at_all)
                if not at_all:
                    return

    def drop_gone(self) -> None:
        """Let go of what has gone again."""
        with self._lock:
            for number, (_, notice) in list(self._rows.items()):
                if notice.state == "confirmed" and not _may_be_there(notice):
                    self._drop(number)

    def of(self, owner: int) -> list[tuple[int, dict[str, Any]]]:
        """Return the row of a command, and those of things, not of processes, that it has made."""
        with self._lock:
            return [
                (owner, self._owners.get(owner, {"process": {"pid": owner}})),
                *(
                    (number, notice.to_row(owner, 0.0))
                    for number, (each, notice) in self._rows.items()
                    if each == owner and notice.call not in _OF_PROCESSES
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
            for number, (each, notice) in list(self._rows.items()):
                if each == owner and notice.call in _OF_PROCESSES:
                    self._drop(number)

    def close(self) -> None:
        """Let go of the store: it is removed if nothing is left, or else a sweep tries again."""
        if self._store is not None and self.folder is not None:
            self._store.close()
            if not self._rows:
                remove_host_folder(self.folder)

    # -- inside --------------------------------------------------------------

    def _use(self, folder: Path) -> None:
        self._lock_fd = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._store = Store(str(folder))
        self.folder = folder

    def _look_later(self, number: int) -> None:
        heapq.heappush(self._due, _Due(time.monotonic() + _LOOKS[0], number, 0))

    def _confirm(self, due: _Due, *, is_last: bool) -> None:
        owner, notice = self._rows[due.number]
        try:
            found = identity_of(notice)
        except OSError:
            # It stays as it is: whoever settles it says why it cannot be looked at.
            return
        if found:
            notice = notice._replace(identity={**notice.identity, **found}, state="confirmed")
            self._rows[due.number] = owner, notice
            self._write(due.number)
        elif found is None and due.look + 1 < len(_LOOKS) and not is_last:
            at = time.monotonic() + _LOOKS[due.look + 1]
            heapq.heappush(self._due, _Due(at, due.number, due.look + 1))
        else:
            self._drop(due.number)

    def _drop(self, number: int) -> None:
        if self._rows.pop(number, None) is not None and self._store is not None:
            with suppress(OSError):
                self._store.delete(number)

    def _write(self, number: int) -> None:
        owner, notice = self._rows[number]
        self._put(number, notice.to_row(owner, seconds_since_boot()))

    def _put(self, number: int, row: dict[str, Any]) -> None:
        if self._store is not None and number not in self._unnoted:
            try:
                self._store.put(number, json.dumps(row).encode())
            except OSError as error:
                self.problem = str(error)


def notice_of_process(call: str, os_pid: int, name: str = "", tag: int | None = None) -> Notice:
    """Return the notice of an OS process. Raises ProcessLookupError."""
    identity = {
        "pid": os_pid,
        "start": start_time_of(os_pid),
        "tag": tag,
        "pid_namespace": pid_namespace(),
    }
    return Notice(call, os_pid, name, identity, state="confirmed")


def _may_be_there(notice: Notice) -> bool:
    if notice.call not in _OF_PROCESSES:
        return is_there(notice)
    try:
        return bool(start_time_of(notice.os_pid) == notice.identity["start"])
    except ProcessLookupError:
        return False
