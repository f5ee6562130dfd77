"""The hooks of kind `files`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from probate import Ordering, hookimpl, runs_inline
from probate_files import flushing
from probate_files.manager import FileManager

if TYPE_CHECKING:
    import concurrent.futures

    from probate import CleanupStats, ResourceId, ResourceUsage


@final
class FileResource:
    """Files: after all that may still write to them."""

    def __init__(self, manager: FileManager | None = None) -> None:
        self.manager = FileManager() if manager is None else manager

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=8)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return pid in self.manager.table

    @hookimpl
    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[Any]]:
        return self.manager.quiesce(pid)

    def _may_block(self, pid: int) -> bool:
        return self.manager.may_block(pid)

    @hookimpl
    @runs_inline(unless=_may_block)
    def cleanup(self, pid: int) -> CleanupStats:
        return self.manager.table.cleanup(pid, flushing.release, release_many=flushing.release_many)

    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        return self.manager.adopt(pid, resource)

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        return self.manager.table.usage(pid)
