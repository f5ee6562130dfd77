"""How a KeyboardInterrupt or SystemExit gets past a cleanup without losing its account."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from probate.models import CleanupStats


@final
class InterruptedCleanup(BaseException):
    """A KeyboardInterrupt or SystemExit came in mid-cleanup; everything was tried all the same.

    `interrupt` is that exception (also the `__cause__`), `stats` the account of what was done.
    The orchestrator raises `interrupt` itself when the whole termination is finished.
    """

    def __init__(self, interrupt: BaseException, stats: CleanupStats) -> None:
        super().__init__(f"{type(interrupt).__name__} during a cleanup, which was completed")
        self.interrupt = interrupt
        self.stats = stats
