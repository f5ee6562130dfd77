"""The hooks of kind `ipc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from probate import Ordering, hookimpl, runs_inline
from probate_ipc.manager import IpcManager

if TYPE_CHECKING:
    import concurrent.futures

    from probate import CleanupStats, ResourceId, ResourceUsage


@final
class IpcResource:
    """Inter-process communication: late, since all other kinds may still tell their peers."""

    def __init__(self, manager: IpcManager | None = None) -> None:
        self.manager = IpcManager() if manager is None else manager

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=5)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return self.manager.owns_any(pid)

    @hookimpl
    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[Any]]:
        return self.manager.quiesce(pid)

    # Not inline: it waits for threads that it has woken to leave, for at most a second each.
    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        return self.manager.cleanup(pid)

    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        return self.manager.adopt(pid, resource)

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        return self.manager.usage(pid)
