"""The hooks of kind `memory`."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from probate import Ordering, hookimpl
from probate_memory.manager import MemoryManager

if TYPE_CHECKING:
    from probate import CleanupStats, ResourceId, ResourceUsage


@final
class MemoryResource:
    """Memory: the very last, since everything else may still look at it."""

    def __init__(self, manager: MemoryManager | None = None) -> None:
        self.manager = MemoryManager() if manager is None else manager

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=0)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return pid in self.manager.table

    # Wiping, and giving back what is large, takes its time, so it is not marked as running inline.
    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        return self.manager.cleanup(pid)

    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        return self.manager.adopt(pid, resource)

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        return self.manager.table.usage(pid)
