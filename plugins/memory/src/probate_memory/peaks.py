"""The most bytes that a process has held at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from probate import ProcessError
from probate.system import forget_in_forked_child

if TYPE_CHECKING:
    from probate import OwnershipTable

#: How many pids that hold nothing are remembered, where nothing tells that they are dead.
_MOST_IDLE: Final = 1024


@final
class Peaks:
    """The highest that a table's own count of bytes was seen at, for each pid.

    A pid's goes with its cleanup. One that had nothing left to clean is found out later, so that
    nothing grows with the dead.
    """

    def __init__(self, table: OwnershipTable[Any]) -> None:
        self._table = table
        self._highest: dict[int, int] = {}
        self._prune_at = _MOST_IDLE
        forget_in_forked_child(self)

    def note(self, pid: int) -> None:
        """Look at what `pid` holds, after an acquisition."""
        nbytes = self._table.nbytes(pid)
        if nbytes > self._highest.get(pid, 0):
            self._highest[pid] = nbytes
            if len(self._highest) > self._prune_at:
                self._prune()

    def of(self, pid: int) -> int:
        """The peak of `pid` in bytes; 0 if it is dead, or never held any."""
        if not self._is_living(pid):
            self._highest.pop(pid, None)
            return 0
        self.note(pid)
        return self._highest.get(pid, 0)

    def drop(self, pid: int) -> None:
        """Forget `pid`, unless it still holds something."""
        if pid not in self._table:
            self._highest.pop(pid, None)

    def forget_parent(self) -> None:
        """Start afresh in a forked child."""
        self._highest = {}

    def _is_living(self, pid: int) -> bool:
        if pid in self._table:
            return True
        try:
            self._table.check_admitted(pid)
        except ProcessError:
            return False
        return True

    def _prune(self) -> None:
        pids = list(self._highest)
        dead = {pid for pid in pids if not self._is_living(pid)}
        idle = [pid for pid in pids if pid not in dead and pid not in self._table]
        for pid in [*dead, *idle[: max(0, len(idle) - _MOST_IDLE)]]:
            self._highest.pop(pid, None)
        self._prune_at = 2 * len(self._highest) + _MOST_IDLE
