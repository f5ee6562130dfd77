"""PostgresResource: the kind as the orchestrator has it."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_postgres.manager import PostgresManager
from probate_postgres.server import reclaim


@final
class PostgresResource(ResourceKind):
    """PostgreSQL: given back when tasks have stopped, before the sockets it may be reached by."""

    def __init__(self, manager: PostgresManager | None = None) -> None:
        self.manager = m = PostgresManager() if manager is None else manager
        super().__init__(m.table, Ordering(12), reclaim=reclaim)
