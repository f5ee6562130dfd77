"""The hooks of kind `scheduler`."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_scheduler.manager import SchedulerManager


@final
class SchedulerResource(ResourceKind):
    """Entries of the run queue: next after the OS processes, so that nothing stopped is left."""

    def __init__(self, manager: SchedulerManager | None = None) -> None:
        self.manager = m = SchedulerManager() if manager is None else manager
        super().__init__(m.table, Ordering(priority=90), quiesce=m.quiesce, cleanup=m.cleanup)
