"""The hooks of kind `signals`."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from probate import Ordering, hookimpl, runs_inline
from probate_signals.manager import SignalManager

if TYPE_CHECKING:
    import concurrent.futures

    from probate import CleanupStats, ResourceUsage


@final
class SignalResource:
    """Signals: after what may want to tell its process something, before sockets."""

    def __init__(self, manager: SignalManager | None = None) -> None:
        self.manager = SignalManager() if manager is None else manager

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=20)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return pid in self.manager.table

    @hookimpl
    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[None]]:
        self.manager.quiesce(pid)
        return []

    @hookimpl
    @runs_inline
    def cleanup(self, pid: int) -> CleanupStats:
        return self.manager.cleanup(pid)

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        return self.manager.table.usage(pid)
