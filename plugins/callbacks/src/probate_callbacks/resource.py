"""The kind `callbacks`: a table of functions, which are called when their owner ends."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, final

from probate import Callback, Ordering, OwnershipTable, ResourceKind

if TYPE_CHECKING:
    from probate import ResourceId


@final
class CallbackResource(ResourceKind):
    """Calls the functions that a process has left, before anything that they may use is freed."""

    def __init__(self) -> None:
        table = OwnershipTable(
            "callbacks",
            Callback.__call__,
            identity=attrgetter("identity"),
            descriptors=attrgetter("descriptors"),
        )
        super().__init__(table, Ordering(priority=60), adopt=self._adopt)

    def _adopt(self, pid: int, resource: object) -> ResourceId | None:
        return self.table.add(pid, resource) if isinstance(resource, Callback) else None
