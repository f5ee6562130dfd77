"""The hooks of kind `files`."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from probate import Ordering, hookimpl, runs_inline
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
        return self.manager.owns_any(pid)

    def _may_wait_to_flush(self, pid: int) -> bool:
        return self.manager.may_wait_to_flush(pid)

    @hookimpl
    @runs_inline(unless=_may_wait_to_flush)
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
