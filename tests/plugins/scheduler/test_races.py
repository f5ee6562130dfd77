"""Everything against everything, from threads; what the kernel shows afterwards."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pytest
from processes_kernel import eventually
from scheduler_workers import all_run
from threads import in_thread

from probate import AlreadyOwnedError, NotOwnedError, ProcessTerminatedError, SchedulingPolicy
from probate.testing import KernelView

if TYPE_CHECKING:
    from collections.abc import Callable

    from scheduler_workers import Start

    from probate import ProcessManager
    from probate_scheduler import SchedulerManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def at_once(*calls: Callable[[], object]) -> list[object]:
    """Call all, each in a thread, from the same moment on; what they return or raise."""
    barrier = threading.Barrier(len(calls))

    def start_call(call: Callable[[], object]) -> object:
        barrier.wait(10)
        return call()

    running = [in_thread(lambda call=call: start_call(call)) for call in calls]  # type: ignore[misc]  # mypy knows no defaulted lambdas
    for thread, _ in running:
        thread.join(20)
        assert not thread.is_alive()
    return [outcome[0] for _, outcome in running]


def test_adding_races_terminating(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Remove raced schedule: what is terminated is not on the queue, and not stopped."""
    workers = [start() for _ in range(3)]
    for _ in range(60):
        process = manager.create_process("job")

        def add_all(pid: int = process.pid) -> None:
            with contextlib.suppress(ProcessTerminatedError):
                for worker in workers:
                    scheduler.add(pid, worker.pid)

        _, result = at_once(add_all, process.terminate)

        assert not isinstance(result, BaseException)
        assert result.is_success  # type: ignore[attr-defined]  # a CleanupResult
        assert scheduler.totals.entries == 0
        assert all_run(workers)


def test_removing_is_final_whatever_races_it(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Slices, pauses, changes and a second removal: in the end it runs, and is queued no more."""
    scheduler.configure(SchedulingPolicy.ROUND_ROBIN, 0.001, slots=1)
    process = manager.create_process("job")
    workers = [start() for _ in range(3)]
    for worker in workers[1:]:
        scheduler.add(process.pid, worker.pid)
    first = workers[0].pid
    for _ in range(60):
        scheduler.add(process.pid, first)
        outcomes = at_once(
            lambda: scheduler.remove(process.pid, first),
            lambda: scheduler.pause(process.pid, first),
            lambda: scheduler.set_weight(process.pid, first, 2),
            lambda: scheduler.remove(process.pid, first),
        )

        for outcome in outcomes:
            assert outcome is None or isinstance(outcome, NotOwnedError)
        assert all_run(workers[:1])
        assert scheduler.totals.entries == 2


def test_two_add_the_same_process(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """One of them owns it, and the other is told who."""
    a, b = manager.create_process("a"), manager.create_process("b")
    worker = start()
    for _ in range(60):
        outcomes = at_once(
            lambda: scheduler.add(a.pid, worker.pid), lambda: scheduler.add(b.pid, worker.pid)
        )

        assert sum(isinstance(each, int) for each in outcomes) == 1
        assert sum(isinstance(each, AlreadyOwnedError) for each in outcomes) == 1
        assert scheduler.totals.entries == 1
        owner = a if manager.orchestrator.has_resources(a.pid) else b
        scheduler.remove(owner.pid, worker.pid)


def test_dying_races_everything(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """No dead process stays on the queue, and its neighbours run."""
    neighbour = start()
    other = manager.create_process("neighbour")
    scheduler.add(other.pid, neighbour.pid)
    for _ in range(40):
        process = manager.create_process("mortal")
        worker = start()
        at_once(
            worker.kill,
            lambda: scheduler.add(process.pid, worker.pid),  # noqa: B023  called in this round
            process.terminate,
        )
        worker.wait()

        eventually(lambda: scheduler.totals.entries == 1, "it has left the queue")
        assert not manager.orchestrator.has_resources(process.pid)
    eventually(lambda: all_run([neighbour]), "the neighbour runs")


def test_the_thread_and_the_reaper_come_and_go(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Two owners fill and empty the queue against one another; nothing is left of it."""
    workers = [start() for _ in range(4)]
    before = len(KernelView.take().fds)
    for _ in range(15):
        owners = [manager.create_process("a"), manager.create_process("b")]

        def use(index: int) -> None:
            for worker in workers[index::2]:
                scheduler.add(owners[index].pid, worker.pid)  # noqa: B023  called in this round
            owners[index].terminate()  # noqa: B023  called in this round

        outcomes = at_once(lambda: use(0), lambda: use(1))

        assert outcomes == [None, None]
        assert all_run(workers)
    scheduler.join_if_idle()

    assert len(KernelView.take().fds) <= before + 2
