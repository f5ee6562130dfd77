"""What the managers of both sorts of rings do the same way."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

from probate import BusyResourceError, NotOwnedError, OwnershipTable, runs_inline
from probate.system import let_all_go
from probate_rings.uring import PATIENCE, IoUring
from probate_rings.zerocopy import ZeroCopyRing

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Iterable, Mapping

    from probate import CleanupStats, Outcome, ResourceId

Ring: TypeAlias = ZeroCopyRing | IoUring


class RingManager:
    """Keeps rings in a table, its own or the one given, in which each ring has one owner.

    Managers that share a table share limits, and the order in which rings are released.
    """

    def __init__(self, table: OwnershipTable[Ring] | None = None) -> None:
        if table is None:
            table = OwnershipTable(
                "rings",
                _release,
                identity=lambda ring: ring,
                descriptors=attrgetter("descriptors"),
                repeatable=True,
            )
        self.table = table

    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[None]]:
        """Stop all rings of `pid`: nothing more is sent or submitted.

        Cancelled operations complete by themselves; there is nobody to wait for.
        """
        for ring in self.table.resources(pid):
            ring.stop()
        return []

    def cleanup(self, pid: int) -> CleanupStats:
        """Cancel and drain the io_urings of `pid`, then free all its rings, newest first."""
        urings = [ring for ring in self.table.resources(pid) if isinstance(ring, IoUring)]
        for uring in urings:
            uring.stop()
        for uring in urings:
            # All were cancelled before any is waited for, and they share one second.
            uring.drain(PATIENCE / len(urings))
        if not (polled_by := _have_let_go(self.table.resources(pid))):
            return self.table.cleanup(pid)
        return self.table.cleanup(pid, partial(_release, polled_by=polled_by))

    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        """Own a ring that nobody owns; None for anything else. Raises ValueError if closed.

        An io_uring of another library is not taken: which buffers the kernel has from it
        cannot be known, so it could not be freed safely.
        """
        if not isinstance(resource, (ZeroCopyRing, IoUring)):
            return None
        if resource.closed:
            raise ValueError(f"closed, so it cannot be adopted: {resource!r}")
        return self.table.add(pid, resource, resource.nbytes)

    def _close(self, pid: int, ring: Ring) -> None:
        try:
            self.table.give_back(pid, ring, _release_by_hand)
        except NotOwnedError as error:
            if error.owner is not None or not ring.closed:
                raise


def _release(ring: Ring, polled_by: Mapping[Ring, str] | None = None) -> Outcome:
    _refuse_polled(ring, polled_by or {})
    # By a cleanup, which has waited already for what can be drained.
    return ring.release(patience=0) if isinstance(ring, IoUring) else ring.release()


def _release_by_hand(ring: Ring) -> Outcome:
    _refuse_polled(ring, _have_let_go([ring]))
    return ring.release()


def _have_let_go(rings: Iterable[Ring]) -> dict[Ring, str]:
    """Have event loops and selectors poll these no more; tell of those that are polled still."""
    # Whoever has not asked for a number cannot have it polled.
    shown = {number: ring for ring in rings if not ring.closed for number in ring.shown}
    return {shown[number]: found.by for number, found in let_all_go(shown).items() if found.by}


def _refuse_polled(ring: Ring, polled_by: Mapping[Ring, str]) -> None:
    if ring in polled_by:
        raise BusyResourceError(polled_by[ring])
