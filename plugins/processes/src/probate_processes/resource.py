"""ProcessTreeResource: the kind as the orchestrator has it."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_processes.manager import ProcessTreeManager
from probate_processes.observing import observe
from probate_processes.remains import noticed, reclaim


@final
class ProcessTreeResource(ResourceKind):
    """Trees of OS processes: first of all, since they use everything else."""

    def __init__(self, manager: ProcessTreeManager | None = None) -> None:
        self.manager = m = ProcessTreeManager() if manager is None else manager
        super().__init__(
            m.table,
            Ordering(priority=100),
            quiesce=m.quiesce,
            adopt=m.adopt,
            usage=m.usage,
            reclaim=reclaim,
            noticed=noticed,
            observe=observe,
        )
