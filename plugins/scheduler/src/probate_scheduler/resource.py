"""The hooks of kind `scheduler`."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from probate import Ordering, hookimpl, runs_inline
from probate_scheduler.manager import SchedulerManager

if TYPE_CHECKING:
    import concurrent.futures

    from probate import CleanupStats, ResourceUsage


@final
class SchedulerResource:
    """Entries of the run queue: next after the OS processes, so that nothing stopped is left."""

    def __init__(self, manager: SchedulerManager | None = None) -> None:
        self.manager = SchedulerManager() if manager is None else manager

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=90)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return pid in self.manager.table

    @hookimpl
    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[None]]:
        # After the processes were asked to stop: what was stopped can now do as it was asked.
        self.manager.quiesce(pid)
        return []

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        return self.manager.cleanup(pid)

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        return self.manager.usage(pid)
