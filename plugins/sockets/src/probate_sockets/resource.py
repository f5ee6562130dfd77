"""The kind `sockets`."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_sockets.manager import SocketManager
from probate_sockets.observing import observe
from probate_sockets.unix import noticed


@final
class SocketResource(ResourceKind):
    """Sockets: last of the first five, since everything else may still talk through them."""

    def __init__(self, manager: SocketManager | None = None) -> None:
        self.manager = m = SocketManager() if manager is None else manager
        super().__init__(
            m.table,
            Ordering(priority=10),
            quiesce=m.quiesce,
            adopt=m.adopt,
            cleanup=m.cleanup,
            may_block=False,
            reclaim=m.reclaim,
            noticed=noticed,
            observe=observe,
        )
