"""TmuxResource: the kind as the orchestrator has it."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_tmux.manager import TmuxManager
from probate_tmux.server import reclaim


@final
class TmuxResource(ResourceKind):
    """tmux: killed with the other programs of its owner, before all that they may use."""

    def __init__(self, manager: TmuxManager | None = None) -> None:
        self.manager = m = TmuxManager() if manager is None else manager
        super().__init__(m.table, Ordering(95), reclaim=reclaim)
