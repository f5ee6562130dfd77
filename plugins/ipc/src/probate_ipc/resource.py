"""The kind `ipc`."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_ipc.manager import IpcManager
from probate_ipc.named import noticed, reclaim
from probate_ipc.observing import observe


@final
class IpcResource(ResourceKind):
    """Inter-process communication: late, since all other kinds may still tell their peers.

    Its cleanup waits for threads that it has woken to leave, for at most a second each.
    """

    def __init__(self, manager: IpcManager | None = None) -> None:
        self.manager = m = IpcManager() if manager is None else manager
        super().__init__(
            m.table,
            Ordering(priority=5),
            quiesce=m.quiesce,
            adopt=m.adopt,
            cleanup=m.cleanup,
            reclaim=reclaim,
            noticed=noticed,
            observe=observe,
        )
