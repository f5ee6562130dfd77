"""The hooks of kind `tasks`."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_tasks.manager import AsyncTaskManager


@final
class TaskResource(ResourceKind):
    """Tasks and calls: stopped before anything that they use is freed."""

    def __init__(self, manager: AsyncTaskManager | None = None) -> None:
        self.manager = m = AsyncTaskManager() if manager is None else manager
        super().__init__(
            m.table,
            Ordering(priority=40),
            quiesce=m.quiesce,
            adopt=m.adopt,
            cleanup=m.cleanup,
            usage=m.usage,
            may_block=m.may_block,
        )
