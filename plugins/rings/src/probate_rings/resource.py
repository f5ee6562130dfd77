"""The hooks of kind `rings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, final

from probate import Ordering, hookimpl, runs_inline
from probate_rings.manager import IoUringManager, ZeroCopyIpc
from probate_rings.ringmanager import new_table
from probate_rings.uring import PATIENCE, IoUring
from probate_rings.zerocopy import ZeroCopyRing

if TYPE_CHECKING:
    import concurrent.futures

    from probate import CleanupStats, Outcome, ResourceId, ResourceUsage
    from probate_rings.ringmanager import OwnedRing


@final
class RingResource:
    """Zero-copy rings and io_uring instances, in one table: limits count them together.

    Both halves are there from the start. `manager` is the zero-copy one, which works wherever
    this kind does; the other is `iouring`.
    """

    def __init__(self, manager: ZeroCopyIpc | None = None) -> None:
        self._table = new_table()
        self.with_zerocopy(ZeroCopyIpc() if manager is None else manager)
        self.with_iouring(IoUringManager())

    def with_zerocopy(self, zerocopy: ZeroCopyIpc) -> Self:
        """Use this one, with all that was made by it. What its predecessor made stays owned."""
        if not isinstance(zerocopy, ZeroCopyIpc):
            raise TypeError(f"expected a ZeroCopyIpc, got {zerocopy!r}")
        zerocopy.share(self._table)
        self.zerocopy = zerocopy
        return self

    def with_iouring(self, iouring: IoUringManager) -> Self:
        """Use this one, with all that was made by it. What its predecessor made stays owned."""
        if not isinstance(iouring, IoUringManager):
            raise TypeError(f"expected an IoUringManager, got {iouring!r}")
        iouring.share(self._table)
        self.iouring = iouring
        return self

    @property
    def manager(self) -> ZeroCopyIpc:
        """The zero-copy half."""
        return self.zerocopy

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=30)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return pid in self._table

    @hookimpl
    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[None]]:
        for _, ring in self._table.owned(pid):
            ring.stop()
        # Cancelled operations complete by themselves; there is nobody to wait for.
        return []

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        urings = [ring for _, ring in self._table.owned(pid) if isinstance(ring, IoUring)]
        for uring in urings:
            uring.stop()
        for uring in urings:
            # All were cancelled before any is waited for, and they share one second.
            uring.drain(PATIENCE / len(urings))
        return self._table.cleanup(pid, _release)

    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        """Own a ring of ours that nobody owns; None for anything else.

        A `liburing.Ring` made elsewhere is not taken: which buffers the kernel has from it is
        not to be known, so it could not be freed safely.
        """
        if not isinstance(resource, (ZeroCopyRing, IoUring)):
            return None
        if resource.closed:
            raise ValueError(f"closed, so it cannot be adopted: {resource!r}")
        return self._table.add(pid, resource, resource.nbytes)

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        return self._table.usage(pid)


def _release(ring: OwnedRing) -> Outcome:
    # What is not drained by now was waited for already.
    return ring.release(patience=0) if isinstance(ring, IoUring) else ring.release()
