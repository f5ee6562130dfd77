"""The hooks of kind `tasks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from probate import Ordering, hookimpl, runs_inline
from probate_tasks.manager import AsyncTaskManager

if TYPE_CHECKING:
    from probate import CleanupStats, ResourceId, ResourceUsage
    from probate_tasks.stoprequest import StopRequest


@final
class TaskResource:
    """Tasks and calls: stopped before anything that they use is freed."""

    def __init__(self, manager: AsyncTaskManager | None = None) -> None:
        self.manager = AsyncTaskManager() if manager is None else manager

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=40)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return self.manager.owns_any(pid)

    # Inline, since only the thread that terminates can tell whether it is one of its own tasks.
    @hookimpl
    @runs_inline
    def quiesce(self, pid: int) -> list[StopRequest]:
        return self.manager.quiesce(pid)

    def _may_block(self, pid: int) -> bool:
        return self.manager.may_block(pid)

    # Closing a coroutine whose loop is gone runs its `finally`, which may hang.
    @hookimpl
    @runs_inline(unless=_may_block)
    def cleanup(self, pid: int) -> CleanupStats:
        return self.manager.cleanup(pid)

    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        return self.manager.adopt(pid, resource)

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        return self.manager.usage(pid)
