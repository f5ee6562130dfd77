"""Connections to SQLite databases: rolled back, and closed on a thread that they allow."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from typing import Final, final

from probate import BusyResourceError, Outcome
from probate_files.entry import Entry
from probate_files.flushing import in_background
from probate_files.numbers import OpenNumbers
from probate_files.thread import HomeThread

#: Seconds that another thread has to come out of a query that was interrupted.
_TO_LEAVE: Final = 0.01


@final
class Database(Entry):
    """A `sqlite3.Connection`.

    By default the thread that made it alone may use it (check_same_thread). Raises ValueError if
    it is closed, or if this is not that thread.
    """

    __slots__ = ("_home", "_is_bound", "_native", "_numbers", "_path")

    def __init__(self, native: sqlite3.Connection) -> None:
        self._native = native
        try:
            cursor = sqlite3.Connection.cursor(native)
        except sqlite3.ProgrammingError as error:
            raise ValueError(f"cannot be adopted (here): {native!r}: {error}") from error
        cursor.row_factory = None
        #: The file of its main database; empty for one in memory.
        self._path = ""
        with contextlib.suppress(sqlite3.Error):
            self._path = str(cursor.execute("PRAGMA database_list").fetchone()[2] or "")
        cursor.close()
        self._numbers = OpenNumbers(self._path)
        self._home = HomeThread()
        self._is_bound = _is_refused_elsewhere(native)

    def __repr__(self) -> str:
        return f"SQLite database {self._path or 'in memory'!r}"

    @property
    def native(self) -> sqlite3.Connection:
        """The connection."""
        return self._native

    @property
    def needs_this_thread(self) -> bool:
        """Whether this thread alone may close it."""
        return self._is_bound and self._home.is_here

    def release(self) -> Outcome:
        """End what runs in it, roll back what was not committed, and close it.

        Raises BusyResourceError if another thread alone may do that, OSError, sqlite3.Error.
        """
        if _is_closed(self._native):
            return Outcome.ALREADY_GONE
        self._numbers.check()
        # As any thread may: one that is inside would keep us out.
        with contextlib.suppress(sqlite3.Error):
            self._native.interrupt()
        outcome = self._home.call(self._end) if self._is_bound else self._end()
        if outcome is None:
            ended = "" if self._home.is_alive else ", which has ended"
            raise BusyResourceError(
                f"thread {self._home.name!r}{ended} alone may close it: end its owner there, or "
                "open it with check_same_thread=False"
            )
        return outcome

    def _end(self) -> Outcome:
        try:
            # It waits for whoever is inside, who has just been interrupted.
            self._native.rollback()
        finally:
            if not self._is_bound and threading.active_count() > 1:
                # That one is about to look at what came of it; of a closed one it finds nothing.
                time.sleep(_TO_LEAVE)
            self._native.close()
        return Outcome.RELEASED


def _is_closed(native: sqlite3.Connection) -> bool:
    try:
        _ = native.total_changes
    except sqlite3.ProgrammingError:
        return True
    return False


def _is_refused_elsewhere(native: sqlite3.Connection) -> bool:
    try:
        in_background(lambda: sqlite3.Connection.cursor(native).close()).result()
    except (sqlite3.ProgrammingError, RuntimeError):
        # Where there can be no thread, there is none to use it.
        return True
    return False
