"""HostJournal: what this OS process has made by name, noted before it is made.

Each thing is a row: the intent, written before it is made; what it was made to be, after; nothing,
once it has been given back. Should this process die, whoever settles its estate has the rows.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, final

from probate.errors import JournalNotArmedError
from probate.journal.folders import HEADER, host_folders, make_host_folder, read_json
from probate.journal.handles import seconds_since_boot
from probate.journal.header import header_of_this_host, is_dead
from probate.journal.store import Store
from probate.system.forking import forget_in_forked_child
from probate.system.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from probate.journal.arming import Reaper
    from probate.journal.named import Named

M = TypeVar("M")

#: Programs, for whom the first argument is the folder of a store, with all that its host can
#: import from: what the reaper becomes when the host has died; and what it starts at once, where
#: there are stores of hosts whose reapers have died, too.
_PATH: Final = (
    "import json, sys; sys.path[:] = json.load(open(sys.argv[1] + '/" + HEADER + "'))['path']; "
)
_SETTLER: Final = _PATH + "from probate.settlement.settling import main; main()"
_SWEEPER: Final = _PATH + "from probate.settlement.sweeping import main; main()"


@final
class Row(NamedTuple):
    """Stands for one thing in the journal."""

    journal: HostJournal
    number: int
    kind: str
    owner: int
    named: Named[Any]

    def make(self, make: Callable[[], M], undo: Callable[[Any], object]) -> M:
        """Make the thing, and note what it was made to be; else `undo` it, and delete the row.

        Raises what `make` raises, and OSError.
        """
        try:
            made = make()
            try:
                self.confirm(made)
            except BaseException:
                undo(made)
                raise
        except BaseException:
            self.delete()
            raise
        return made

    def confirm(self, made: object) -> None:
        """Note what the thing was made to be. Raises OSError."""
        identity = {**self.named.before, **self.named.after(made)}
        self.journal.write(self, "confirmed", identity)

    def adopt(self, made: object) -> None:
        """Note what a thing is that was there already; else delete the row. Raises OSError."""
        try:
            self.confirm(made)
        except BaseException:
            self.delete()
            raise

    def delete(self) -> None:
        """Note that it was given back, or never made.

        If that cannot be written, it is logged: whoever settles finds that it is gone.
        """
        try:
            self.journal.delete(self)
        except OSError as error:
            logger.warning("%s: %s", self.named.description, error)


@final
class HostJournal:
    """The journal of this OS process, for any number of managers. Thread-safe.

    Its store and its reaper come with the first row. A forked child has none: what is in the
    store is its parent's.
    """

    def __init__(self, path: str | None = None, *, has_reaper: bool = True) -> None:
        self._path = path
        self._has_reaper = has_reaper
        self._users = 0
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._store: Store | None = None
        self._reaper: Reaper | None = None
        #: Where the store is; None before the first row.
        self.folder: Path | None = None
        self._inherited: list[object] = []
        forget_in_forked_child(self)

    def __repr__(self) -> str:
        return f"<HostJournal {self.folder or '(nothing made yet)'}>"

    def open(self) -> None:
        """Count in a manager that uses it."""
        with self._lock:
            self._users += 1

    def close(self) -> None:
        """Count out a manager; with the last, end the reaper and the store if nothing is left.

        What is left, since it could not be given back, stays for when this process has ended.
        """
        with self._lock:
            self._users -= 1
            if self._users > 0 or self._store is None or not self._store.is_empty():
                return
            store, reaper, folder = self._store, self._reaper, self.folder
            self._store = self._reaper = self.folder = None
        if reaper is not None:
            reaper.dismiss()
        store.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def intend(self, kind: str, owner: int, named: Named[Any]) -> Row:
        """Note that a thing is about to be made, and by what it will be found.

        Raises JournalNotArmedError if nobody would give it back should this process die; OSError.
        """
        self._arm()
        row = Row(self, next(self._numbers), kind, owner, named)
        self.write(row, "intent", {"uid": os.geteuid(), **named.before})
        return row

    def write(self, row: Row, state: str, identity: Mapping[str, Any]) -> None:
        """Write a row. Raises OSError."""
        value = {
            "kind": row.kind,
            "owner": row.owner,
            "description": row.named.description,
            "state": state,
            "at": seconds_since_boot(),
            "identity": identity,
        }
        if (store := self._store) is not None:
            store.put(row.number, json.dumps(value).encode())

    def delete(self, row: Row) -> None:
        """Delete a row. Raises OSError."""
        if (store := self._store) is not None:
            store.delete(row.number)

    def forget_parent(self) -> None:
        """Have nothing, in a forked child, and keep what is the parent's from being finalised."""
        self._inherited += [self._store, self._reaper]
        if self._reaper is not None:
            # The reaper would take this child for its host, were this end left open.
            self._reaper.disown()
        self._lock = threading.RLock()
        self._users, self._numbers = 0, itertools.count(1)
        self._store = self._reaper = self.folder = None

    # -- inside --------------------------------------------------------------

    def _arm(self) -> None:
        """Make the store, and have a reaper watch this process, unless that is done."""
        reaper = self._reaper
        if self._store is not None and (not self._has_reaper or (reaper and reaper.is_armed)):
            return
        with self._lock:
            if self._store is None:
                folder = make_host_folder(header_of_this_host(), self._path)
                try:
                    store = Store(str(folder))
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                self._store, self.folder = store, folder
            if self._has_reaper and (self._reaper is None or not self._reaper.is_armed):
                self._reaper = self._start_reaper()

    def _start_reaper(self) -> Reaper:
        from probate.journal.arming import Reaper

        try:
            first = self._program(_SWEEPER) if self._sees_dead_hosts() else []
            reaper = Reaper.start(self._program(_SETTLER), first)
            reaper.watch(self._reaper_died)
        except OSError as error:
            raise JournalNotArmedError(
                f"no reaper could be started: {error}; nothing is made that nobody would give "
                "back. Try again, or use with_journal(reaper=False), where the next sweep does"
            ) from error
        return reaper

    def _program(self, source: str) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", source, str(self.folder)]

    def _sees_dead_hosts(self) -> bool:
        for folder in host_folders(self._path):
            with suppress(OSError, ValueError, KeyError, TypeError):
                if folder != self.folder and is_dead(read_json(folder / HEADER)):
                    return True
        return False

    def _reaper_died(self, reaper: Reaper) -> None:
        """Have another one watch at once. The thread of the death watch calls it, for a moment."""
        threading.Thread(target=self._replace, args=(reaper,), daemon=True).start()

    def _replace(self, reaper: Reaper) -> None:
        with self._lock:
            if self._reaper is not reaper:
                return
            reaper.close()
            logger.warning("the reaper has died; another one is started")
            try:
                self._reaper = self._start_reaper()
            except JournalNotArmedError as error:
                # Whoever makes the next thing tries again, and is told.
                logger.error("%s", error)


def journal_of_host(path: str | None, *, has_reaper: bool) -> HostJournal:
    """Return the journal of this OS process, counted in for one more manager."""
    journal = _journal(path, has_reaper)
    journal.open()
    return journal


@functools.cache
def _journal(path: str | None, has_reaper: bool) -> HostJournal:
    """Return the one that all managers of this OS process have which are built so."""
    return HostJournal(path, has_reaper=has_reaper)
