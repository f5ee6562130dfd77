"""SignalResource: the kind as the orchestrator has it."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_signals.manager import SignalManager


@final
class SignalResource(ResourceKind):
    """Signals: after what may want to tell its process something, before sockets."""

    def __init__(self, manager: SignalManager | None = None) -> None:
        self.manager = m = SignalManager() if manager is None else manager
        super().__init__(
            m.table, Ordering(priority=20), quiesce=m.quiesce, cleanup=m.cleanup, may_block=False
        )
