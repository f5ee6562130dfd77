"""HostJournal: what this OS process has made by name, noted before it is made.

Each thing is a row: the intent, written before it is made; what it was made to be, after; nothing,
once it has been given back. Should this process die, whoever settles its estate has the rows.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, final

from probate.errors import JournalNotArmedError, UnsettledResourceError
from probate.journal.folders import make_host_folder, remove_host_folder
from probate.journal.handles import seconds_since_boot
from probate.journal.header import header_of_this_host
from probate.journal.hostreaper import host_reaper
from probate.journal.loggedstore import LoggedStore
from probate.journal.programs import settler, sweep_beside
from probate.journal.store import LostNumberError
from probate.system.forking import forget_in_forked_child
from probate.system.interrupts import fell_in
from probate.system.log import logger
from probate.system.making import take

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from probate.journal.hostreaper import ReaperLoan
    from probate.journal.named import Named

M = TypeVar("M")


@final
class Row(NamedTuple):
    """Stands for one thing in the journal."""

    journal: HostJournal
    number: int
    kind: str
    #: The number of its owner's row.
    owner: int
    named: Named[Any]

    def make(self, make: Callable[[], M], undo: Callable[[Any], object]) -> M:
        """Make the thing, and note what it was made to be; else `undo` it, and delete the row.

        The row stays as an intent where nobody knows whether there is a thing: `make` has raised
        UnsettledResourceError, or an exception fell into it, or `undo` has raised anything. Raises
        what they raise, and OSError.
        """
        made: list[M] = []
        try:
            # What is made is noted in the same step: no interrupt comes in between.
            take(made, make)
            self.confirm(made[0])
        except BaseException as error:
            for each in made:
                undo(each)
            if made or not (isinstance(error, UnsettledResourceError) or fell_in(error)):
                self.delete()
            raise
        return made[0]

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
            self.journal.delete(self.number)
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
        self._store: LoggedStore | None = None
        self._loan: ReaperLoan | None = None
        #: Where the store is; None before the first row.
        self.folder: Path | None = None
        self._inherited: list[LoggedStore] = []
        forget_in_forked_child(self)

    def __repr__(self) -> str:
        return f"<HostJournal {self.folder or '(nothing made yet)'}>"

    def open(self) -> None:
        """Count in a manager that uses it."""
        with self._lock:
            self._users += 1

    def close(self) -> None:
        """Count out a manager; with the last, end the store if nothing is left.

        What is left, since it could not be given back, stays for when this process has ended, and
        so does the reaper.
        """
        with self._lock:
            self._users -= 1
            if self._users > 0 or self._store is None or _has_things(self._store):
                return
            store, loan, folder = self._store, self._loan, self.folder
            self._store = self._loan = self.folder = None
        if loan is not None:
            loan.reaper.settled(str(folder))
            loan.give_back()
        store.close()
        if folder is not None:
            remove_host_folder(folder)

    def note_owner(self, description: Mapping[str, Any]) -> int:
        """Note who owns things, or may; return the number of its row.

        Raises JournalNotArmedError if nobody would settle should this process die; OSError.
        """
        number = next(self._numbers)
        self._put_first(number, {"process": description})
        return number

    def intend(self, kind: str, owner: int, named: Named[Any]) -> Row:
        """Note that a thing is about to be made for an owner, and by what it will be found.

        Raises JournalNotArmedError if nobody would give it back should this process die; OSError.
        """
        row = Row(self, next(self._numbers), kind, owner, named)
        identity = {"uid": os.geteuid(), **named.before}
        self._put_first(row.number, _values_of(row, "intent", identity))
        return row

    def write(self, row: Row, state: str, identity: Mapping[str, Any]) -> None:
        """Write a row. Raises OSError."""
        values = _values_of(row, state, identity)
        self._put(lambda store: store.write(row.number, values), waits=True)

    def delete(self, number: int) -> None:
        """Delete the row of that number. Raises OSError."""
        # What is due when it is moved is deleted where it goes on.
        self._put(lambda store: store.delete(number), waits=False)

    def forget_parent(self) -> None:
        """Have nothing, in a forked child, and keep what is the parent's from being finalised."""
        if self._store is not None:
            self._store.forget_parent()
            self._inherited.append(self._store)
        self._lock = threading.RLock()
        self._users, self._numbers = 0, itertools.count(1)
        self._store = self._loan = self.folder = None

    def arm(self) -> LoggedStore:
        """Make the store, and have a reaper watch this process, unless that is done; return it.

        Raises JournalNotArmedError if it cannot be done.
        """
        store = self._store
        # Whether its file is open is looked at by whatever writes into it.
        if store is None or not store.is_found() or not self._is_watched():
            return self._rearm()
        return store

    # -- inside --------------------------------------------------------------

    def _rearm(self) -> LoggedStore:
        try:
            with self._lock:
                store = self._store
                if store is None:
                    store = self._make_store()
                elif not store.is_there():
                    store = self._move(store)
                if not self._is_watched():
                    self._loan = self._borrow_reaper()
                return store
        except OSError as error:
            raise JournalNotArmedError(
                f"{error}; nothing is made that nobody would give back. To do without, build the "
                "manager without_journal(), or set PROBATE_JOURNAL=off"
            ) from error

    def _put_first(self, number: int, value: dict[str, Any]) -> None:
        """Write the first row of something, which is not done unless it will be settled."""
        try:
            self.arm().write(number, value)
        except LostNumberError:
            self._rearm().write(number, value)

    def _put(self, act: Callable[[LoggedStore], None], *, waits: bool) -> None:
        """Write to the store, or where its rows have gone to; only if that is known, or it waits.

        Nobody waits who may be waited for by a signal handler that has fallen into the move.
        """
        while (store := self._store) is not None:
            try:
                act(store)
            except LostNumberError:
                # By another thread, which is done with it then, it is moved.
                if not self._lock.acquire(blocking=waits):
                    return
                try:
                    if self._store is store:
                        raise
                finally:
                    self._lock.release()
            else:
                return

    def _is_watched(self) -> bool:
        loan = self._loan
        return not self._has_reaper or (loan is not None and not loan.is_over)

    def _make_store(self) -> LoggedStore:
        folder = make_host_folder(header_of_this_host(), self._path)
        try:
            store = LoggedStore(str(folder))
        except BaseException:
            remove_host_folder(folder)
            raise
        self._store, self.folder = store, folder
        return store

    def _move(self, old: LoggedStore) -> LoggedStore:
        """Go on in another folder, with all rows.

        Ours is gone, such as at the end of a login, or somebody has closed its file.
        """
        lost, loan = self.folder, self._loan
        folder = make_host_folder(header_of_this_host(), self._path)
        # What others write meanwhile would be missing in the copy.
        with old.held():
            try:
                new = old.copy_to(str(folder))
                self._store, self.folder = new, folder
            except BaseException:
                remove_host_folder(folder)
                raise
            old.close()
        logger.warning("the journal in %s was removed or closed; it goes on in %s", lost, folder)
        if loan is not None and self._is_watched():
            loan.reaper.settled(str(lost))
            try:
                loan.reaper.settle(str(folder), settler(folder))
            except BaseException:
                # It does not know of this one.
                self._loan = None
                raise
        if lost is not None:
            remove_host_folder(lost)
        return new

    def _borrow_reaper(self) -> ReaperLoan:
        try:
            loan = host_reaper.lend(self._reaper_died)
        except OSError as error:
            raise OSError(
                f"no reaper could be started: {error}; try again, or use with_journal(reaper=False)"
                ", where the next sweep does its work"
            ) from error
        folder = self.folder
        try:
            if folder is not None:
                loan.reaper.settle(str(folder), settler(folder))
                sweep_beside(folder, loan.reaper.run, self._path)
        except BaseException:
            # Else it would wait for this host to die, and this host for it to end.
            loan.reaper.settled(str(folder))
            loan.give_back()
            raise
        return loan

    def _reaper_died(self, loan: ReaperLoan) -> None:
        """Have another one watch at once. The thread of the death watch calls it, for a moment."""
        if self._loan is loan:
            self._loan = None
            logger.warning("the reaper has died; another one is started")
            threading.Thread(target=self._replace, daemon=True).start()

    def _replace(self) -> None:
        try:
            if self._store is not None:
                self.arm()
        except JournalNotArmedError as error:
            # Whoever makes the next thing tries again, and is told.
            logger.error("%s", error)


def _values_of(row: Row, state: str, identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "owner": row.owner,
        "description": row.named.description,
        "state": state,
        "at": seconds_since_boot(),
        "identity": identity,
    }


def _has_things(store: LoggedStore) -> bool:
    """Tell whether there are rows of things: their owners alone are of no use to anybody."""
    return any("process" not in row for row in store.rows())


def journal_of_host(path: str | None, *, has_reaper: bool) -> HostJournal:
    """Return the journal of this OS process, counted in for one more manager."""
    journal = _journal(path, has_reaper)
    journal.open()
    return journal


@functools.cache
def _journal(path: str | None, has_reaper: bool) -> HostJournal:
    """Return the one that all managers of this OS process have which are built so."""
    return HostJournal(path, has_reaper=has_reaper)
