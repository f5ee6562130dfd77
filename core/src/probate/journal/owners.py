"""OwnersJournal: what the processes of one manager have made by name, and which they are."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol, final

from probate.system.forking import forget_in_forked_child
from probate.system.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.journal.host import HostJournal, Row
    from probate.journal.named import Named


class Owner(Protocol):
    """Owns things: what the journal says of a process."""

    @property
    def name(self) -> str:
        """Return its name."""

    @property
    def key(self) -> str | None:
        """Return what it is known by elsewhere, if it is."""

    @property
    def parent(self) -> Owner | None:
        """Return who owns it."""

    @property
    def pid(self) -> int:
        """Return its pid."""


@final
class OwnersJournal:
    """Keeps the rows of one manager's processes in the journal of this OS process. Thread-safe.

    A process has a row of its own with the first thing that it makes by a name, or earlier by
    `note`, until its end: of a dead host it is known which processes it had, also those that held
    nothing. `find` is a method that finds a process; whose it is may be gone before this is.
    """

    def __init__(self, journal: HostJournal, find: Callable[[int], Owner | None]) -> None:
        self._journal = journal
        self._find = weakref.WeakMethod(find)
        self.forget_parent()
        forget_in_forked_child(self)

    def intend(self, kind: str, pid: int, named: Named[Any]) -> Row:
        """Note that `pid` is about to make a thing; raises as `HostJournal.intend`."""
        return self._journal.intend(kind, self.note(pid), named)

    def note(self, pid: int) -> int:
        """Note that there is a process; return the number of its row. Raises as `intend`."""
        if (number := self._rows.get(pid)) is not None:
            return number
        find = self._find()
        process = None if find is None else find(pid)
        description: dict[str, Any] = {"pid": pid, "name": "", "key": None, "parent": None}
        if process is not None:
            parent = None if process.parent is None else process.parent.pid
            description |= {"name": process.name, "key": process.key, "parent": parent}
        with self._lock:
            if (number := self._rows.get(pid)) is None:
                number = self._rows[pid] = self._journal.note_owner(description)
        return number

    def end(self, pid: int) -> None:
        """Note that a process has ended, and has left nothing."""
        if (number := self._rows.pop(pid, None)) is not None:
            try:
                self._journal.delete(number)
            except OSError as error:
                logger.warning("the end of process %d: %s", pid, error)

    def close(self) -> None:
        """Have no more to note. What is left by processes that have ended stays theirs."""
        self._journal.close()

    def forget_parent(self) -> None:
        """Know of none, in a forked child."""
        self._lock = threading.RLock()
        #: The number of each one's row, by pid.
        self._rows: dict[int, int] = {}
