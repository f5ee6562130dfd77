"""What rings of both sorts are kept in: one ownership table, so that limits and order hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from probate import NotOwnedError, Outcome, OwnershipTable

if TYPE_CHECKING:
    from collections.abc import Callable

KIND: Final = "rings"


class OwnedRing(Protocol):
    """A ring, as far as its owner's end concerns it."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""

    @property
    def closed(self) -> bool:
        """Whether it is closed."""

    def stop(self) -> None:
        """Let nothing new begin; never blocks."""

    def close(self) -> None:
        """Release; idempotent."""

    def release(self) -> Outcome:
        """Free it. Raises BusyResourceError while it is in use."""


RingTable = OwnershipTable[OwnedRing]
R = TypeVar("R", bound=OwnedRing)


def new_table() -> RingTable:
    """A table in which each ring has one owner."""
    return OwnershipTable(KIND, identity=lambda ring: ring)


class RingManager:
    """Keeps the rings that it makes in a table: its own, until it shares a resource's."""

    def __init__(self) -> None:
        self._table = new_table()

    def share(self, table: RingTable) -> None:
        """Keep all rings in `table` from now on, those of before included.

        For wiring up: no other thread may be making rings. Raises what adding them raises, if
        their owners may own nothing there.
        """
        old = self._table
        if old is table:
            return
        for pid in old.pids():
            for ring_id, ring in reversed(old.owned(pid)):
                table.add(pid, ring, ring.nbytes)
                old.release(pid, ring_id)
        self._table = table

    def _acquire(self, pid: int, make: Callable[[], R], nbytes: int) -> R:
        return self._table.acquire(pid, make, release, nbytes)  # type: ignore[return-value]  # what make has made

    def _close(self, pid: int, ring: OwnedRing) -> None:
        try:
            ring_id = self._table.find(pid, ring)
        except NotOwnedError as error:
            if error.owner is None and ring.closed:
                return
            raise
        # Still owned if it is busy, so that the owner's end finds it.
        ring.close()
        self._table.release(pid, ring_id)


def release(ring: OwnedRing) -> Outcome:
    """Free a ring, for `OwnershipTable.cleanup`."""
    return ring.release()
