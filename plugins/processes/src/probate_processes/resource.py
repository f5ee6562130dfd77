"""The hooks of kind `processes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from probate import Ordering, hookimpl, runs_inline
from probate_processes.manager import ProcessTreeManager

if TYPE_CHECKING:
    import concurrent.futures

    from probate import CleanupStats, ResourceId, ResourceUsage


@final
class ProcessTreeResource:
    """Trees of OS processes: first of all, since they use everything else."""

    def __init__(self, manager: ProcessTreeManager | None = None) -> None:
        self.manager = ProcessTreeManager() if manager is None else manager

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=100)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return self.manager.owns_any(pid)

    @hookimpl
    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[None]]:
        return self.manager.quiesce(pid)

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        return self.manager.cleanup(pid)

    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        return self.manager.adopt(pid, resource)

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        return self.manager.usage(pid)
