"""Spawned processes that share processor time: the kinds `processes` and `scheduler` together."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from probate import (
    Process,
    ProcessManager,
    ResourceOrchestrator,
    SchedulingPolicy,
    UnknownKindError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Busy until it is asked to stop; then it says so, in a file of its own.
POLITE = """
import pathlib, signal, sys

def stop(number, frame):
    pathlib.Path(sys.argv[1]).write_text("stopped")
    sys.exit()

signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True:
    pass
"""


@pytest.fixture
def scheduled(orchestrator: ResourceOrchestrator) -> Iterator[ProcessManager]:
    """A manager that lets spawned processes take turns of 5 ms."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(10)
    with builder.with_scheduler(SchedulingPolicy.FAIR, quantum=0.005).build() as manager:
        yield manager


def polite(manager: ProcessManager, path: Path) -> Process:
    command = [sys.executable, "-I", "-S", "-c", POLITE, str(path)]
    process = manager.spawn(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
    return process


def test_workers_in_mid_slice_run_their_sigterm_handlers(
    scheduled: ProcessManager, tmp_path: Path
) -> None:
    """Whoever is stopped at that moment is let run before it is asked to stop."""
    count = len(os.sched_getaffinity(0)) + 3
    paths = [tmp_path / str(number) for number in range(count)]
    processes = [polite(scheduled, path) for path in paths]
    scheduler = scheduled.orchestrator["scheduler"].manager
    while scheduler.totals.switches < count:
        os.sched_yield()
    results = [process.terminate() for process in processes]

    assert [path.read_text() for path in paths] == ["stopped"] * count
    assert [process.returncode for process in processes] == [0] * count
    assert [result.errors for result in results] == [()] * count


def test_a_worker_that_is_killed_in_mid_slice_leaves_the_queue(scheduled: ProcessManager) -> None:
    """By itself, with all that it owned; the others go on, and nobody stays stopped."""
    command = ["sh", "-c", "while :; do :; done"]
    count = len(os.sched_getaffinity(0)) + 2
    first, *others = [scheduled.spawn(command) for _ in range(count)]
    scheduler = scheduled.orchestrator["scheduler"].manager
    assert first.os_pid is not None
    psutil.Process(first.os_pid).kill()
    result = scheduled.wait(first.pid, 10)
    seen = scheduler.totals.slices
    while scheduler.totals.slices < seen + 2 * len(others):
        os.sched_yield()

    assert result.is_success
    assert scheduler.totals.entries == len(others)
    survivors = [psutil.Process(other.os_pid) for other in others]
    for other in others:
        scheduler.remove(other.pid, other.os_pid)
    assert psutil.STATUS_STOPPED not in [each.status() for each in survivors]


def test_priority_and_weight_reach_the_scheduler(scheduled: ProcessManager) -> None:
    """What `spawn` is given is what the entry has."""
    process = scheduled.spawn(["sleep", "1000"], priority=3, weight=7)
    (figures,) = scheduled.orchestrator["scheduler"].manager.statistics(process.pid)

    assert (figures.os_pid, figures.priority, figures.weight) == (process.os_pid, 3, 7)


def test_bad_figures_leave_nothing(scheduled: ProcessManager) -> None:
    """A weight that is none: the process that was just started is gone again."""
    before = set(psutil.Process().children())
    with pytest.raises(ValueError, match="weight"):
        scheduled.spawn(["sleep", "1000"], weight=0)

    assert set(psutil.Process().children()) == before
    assert scheduled.list_processes() == []


def test_without_the_kind_there_is_no_such_manager() -> None:
    """A clear error at build, and the orchestrator is free for another manager."""
    orchestrator = ResourceOrchestrator()
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with pytest.raises(UnknownKindError, match="probate-scheduler"):
        builder.with_scheduler(SchedulingPolicy.ROUND_ROBIN).build()

    ProcessManager.builder().with_resource_orchestrator(orchestrator).build().close()


@pytest.mark.parametrize("quantum", [0, 0.0009, 1.1, -1, float("nan"), "0.1", True])
def test_a_quantum_is_one_millisecond_to_one_second(quantum: float) -> None:
    """Anything else is refused by the builder."""
    with pytest.raises(ValueError, match="quantum"):
        ProcessManager.builder().with_scheduler(SchedulingPolicy.FAIR, quantum=quantum)


def test_an_unknown_policy_is_refused() -> None:
    """By the builder, too."""
    with pytest.raises(ValueError, match="lottery"):
        ProcessManager.builder().with_scheduler("lottery")  # type: ignore[arg-type]  # the point
