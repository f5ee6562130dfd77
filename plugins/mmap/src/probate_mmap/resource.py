"""The hooks of kind `mmap`."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from probate import Ordering, hookimpl, runs_inline
from probate_mmap.manager import MmapManager

if TYPE_CHECKING:
    import concurrent.futures

    from probate import CleanupStats, ResourceId, ResourceUsage


@final
class MappingResource:
    """Memory maps: first of the first five, since by then their users have been asked to stop."""

    def __init__(self, manager: MmapManager | None = None) -> None:
        self.manager = MmapManager() if manager is None else manager

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=50)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return self.manager.owns_any(pid)

    @hookimpl
    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[None]]:
        return self.manager.quiesce(pid)

    def _may_wait(self, pid: int) -> bool:
        return self.manager.may_wait(pid)

    @hookimpl
    @runs_inline(unless=_may_wait)
    def cleanup(self, pid: int) -> CleanupStats:
        return self.manager.cleanup(pid)

    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        return self.manager.adopt(pid, resource)

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        return self.manager.usage(pid)
