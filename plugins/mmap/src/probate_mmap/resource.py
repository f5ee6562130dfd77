"""The hooks of kind `mmap`."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_mmap.manager import MmapManager
from probate_mmap.observing import observe


@final
class MappingResource(ResourceKind):
    """Memory maps: first of the first five, since by then their users have been asked to stop."""

    def __init__(self, manager: MmapManager | None = None) -> None:
        self.manager = m = MmapManager() if manager is None else manager
        super().__init__(
            m.table,
            Ordering(priority=50),
            quiesce=m.quiesce,
            adopt=m.adopt,
            cleanup=m.cleanup,
            may_block=m.may_wait,
            reclaim=m.reclaim,
            observe=observe,
        )
