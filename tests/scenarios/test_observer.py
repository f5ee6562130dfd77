"""An observer over all kinds, with real resources of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from drivers import LoopThread, drivers

from probate import hookimpl

if TYPE_CHECKING:
    from collections.abc import Generator

    from probate import CleanupStats, ProcessManager


class Audit:
    """Wraps `cleanup` and notes what it comes to."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, int]]] = []

    @hookimpl(wrapper=True)
    def cleanup(self, pid: int) -> Generator[None, list[CleanupStats], Any]:
        answers = yield
        self.seen += [(pid, dict(stats.by_type)) for stats in answers]
        return answers


@pytest.mark.usefixtures("nothing_remains")
def test_an_observer_sees_the_cleanup_of_every_kind_once(manager: ProcessManager) -> None:
    """It takes part in the call of each plugin, in cleanup order, and changes nothing."""
    audit = Audit()
    manager.orchestrator.register(audit, "audit")
    process = manager.create_process("observed")
    with LoopThread() as loop:
        for driver in drivers(manager.orchestrator, loop).values():
            driver.make(process.pid)
        result = process.terminate(grace=5)

    assert result.errors == ()
    assert audit.seen == [
        (process.pid, {"mmap": 2}),
        (process.pid, {"tasks": 2}),
        (process.pid, {"rings": 1}),
        (process.pid, {"signals": 1}),
        (process.pid, {"sockets": 3}),
    ]
    assert "audit" not in manager.orchestrator
