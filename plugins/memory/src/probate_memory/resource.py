"""MemoryResource: the kind as the orchestrator has it."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_memory.manager import MemoryManager
from probate_memory.noticing import noticed
from probate_memory.observing import observe


@final
class MemoryResource(ResourceKind):
    """Memory: the very last, since everything else may still look at it."""

    def __init__(self, manager: MemoryManager | None = None) -> None:
        self.manager = m = MemoryManager() if manager is None else manager
        # Wiping, and giving back what is large, takes its time: so a cleanup may block.
        super().__init__(
            m.table,
            Ordering(priority=0),
            adopt=m.adopt,
            cleanup=m.cleanup,
            reclaim=m.reclaim,
            noticed=noticed,
            observe=observe,
        )
