"""The hooks of kind `sockets`."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from probate import Ordering, hookimpl, runs_inline
from probate_sockets.manager import SocketManager

if TYPE_CHECKING:
    import concurrent.futures

    from probate import CleanupStats, ResourceId, ResourceUsage


@final
class SocketResource:
    """Sockets: last of the first five, since everything else may still talk through them."""

    def __init__(self, manager: SocketManager | None = None) -> None:
        self.manager = SocketManager() if manager is None else manager

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=10)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return self.manager.owns_any(pid)

    @hookimpl
    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[None]]:
        return self.manager.quiesce(pid)

    @hookimpl
    @runs_inline
    def cleanup(self, pid: int) -> CleanupStats:
        return self.manager.cleanup(pid)

    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        return self.manager.adopt(pid, resource)

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        return self.manager.usage(pid)
