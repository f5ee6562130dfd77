"""The hooks of kind `rings`."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_rings.manager import IoUringManager, ZeroCopyIpc
from probate_rings.observing import observe


@final
class RingResource(ResourceKind):
    """Zero-copy rings and io_uring instances, in one table: limits count them together.

    `manager`, or `zerocopy`, makes the former, `iouring` the latter. Another manager serves as
    well if it is made with the table of these.
    """

    def __init__(self, manager: ZeroCopyIpc | None = None) -> None:
        self.manager = self.zerocopy = m = ZeroCopyIpc() if manager is None else manager
        self.iouring = IoUringManager(m.table)
        super().__init__(
            m.table,
            Ordering(priority=30),
            quiesce=m.quiesce,
            adopt=m.adopt,
            cleanup=m.cleanup,
            observe=observe,
        )
