"""Terminations, and stops that are not the scheduler's: the lessons of this kind."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
from processes_kernel import eventually, state
from scheduler_workers import BUSY, all_run, stopped

from probate import CleanupStats, SchedulingPolicy
from probate_scheduler import EntryState, SchedulerManager, SchedulerResource

if TYPE_CHECKING:
    from pathlib import Path

    from scheduler_workers import Queue, Start

    from probate import ProcessManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_a_stopped_worker_still_gets_to_run_its_sigterm_handler(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start, tmp_path: Path
) -> None:
    """SIGSTOPped process never saw SIGTERM: it is resumed, off the queue, when asked to stop."""
    process = manager.create_process("job")
    scheduler.configure(SchedulingPolicy.PRIORITY, 1.0, slots=1)
    note = tmp_path / "note"
    trap = f"trap 'echo heard > {note}; exit 0' TERM; echo ready > {note}"
    # One that forks nothing: in the midst of vfork(2) it would wait for a child that is stopped.
    script = f"{trap}; while :; do :; done"
    worker, other = start(["sh", "-c", script]), start(BUSY)
    eventually(lambda: note.exists() and note.read_text() == "ready\n", "it has its handler")
    scheduler.add(process.pid, worker.pid)
    scheduler.add(process.pid, other.pid, priority=1)
    eventually(lambda: state(worker.pid) == "T", "it is stopped, and will never have a turn")
    os.kill(worker.pid, signal.SIGTERM)

    assert note.read_text() == "ready\n"

    scheduler.quiesce(process.pid)

    assert worker.wait(10) == 0
    assert note.read_text() == "heard\n"


def test_what_was_quiesced_is_never_stopped_again(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """It stays owned until its cleanup, off the queue: neither slices nor pauses reach it."""
    a, b = manager.create_process("a"), manager.create_process("b")
    leaving = [start(), start()]
    for worker in leaving:
        scheduler.add(a.pid, worker.pid)
    staying = [start(), start()]
    for worker in staying:
        scheduler.add(b.pid, worker.pid)
    scheduler.pause(a.pid, leaving[0].pid)
    scheduler.quiesce(a.pid)
    scheduler.pause_all(a.pid)
    scheduler.resume_all(a.pid)
    had = [each.slices for each in scheduler.statistics(b.pid)]
    eventually(
        lambda: min(each.slices for each in scheduler.statistics(b.pid)) > max(had) + 5,
        "the others go on taking turns",
    )

    assert all_run(leaving)
    assert {each.state for each in scheduler.statistics(a.pid)} == {EntryState.REMOVED}
    assert manager.terminate_process(a.pid).stats.resources_freed == 2


def test_an_asynchronous_termination_does_the_same(
    manager: ProcessManager, scheduler: SchedulerManager, queue: Queue
) -> None:
    """All continued, all counted; a second cleanup finds nothing."""
    process, workers = queue(3)
    eventually(lambda: stopped(workers) == 2, "two of three are stopped")

    result = asyncio.run(manager.terminate_process_async(process.pid))

    assert result.is_success
    assert result.stats.by_type == {"scheduler": 3}
    assert all_run(workers)
    assert scheduler.cleanup(process.pid) == CleanupStats()


def test_what_has_died_before_is_not_counted(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Whether or not its death was heard of before the cleanup came to it."""
    for _ in range(20):
        process = manager.create_process("job")
        workers = [start(), start()]
        for worker in workers:
            scheduler.add(process.pid, worker.pid)
        workers[0].kill()
        os.waitid(os.P_PID, workers[0].pid, os.WEXITED | os.WNOWAIT)

        result = manager.terminate_process(process.pid)

        assert result.is_success
        assert result.stats.resources_freed == 1


def test_what_a_user_has_stopped_stays_stopped(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """It takes no turns and holds no slot; neither its removal nor anything else continues it."""
    process = manager.create_process("job")
    held, *workers = [start() for _ in range(3)]
    os.kill(held.pid, signal.SIGSTOP)
    eventually(lambda: state(held.pid) == "T", "the user has stopped it")
    for worker in (held, *workers):
        scheduler.add(process.pid, worker.pid)
    entry = scheduler.find(process.pid, held.pid)
    eventually(lambda: entry.state is EntryState.HELD, "it is noticed")
    eventually(
        lambda: min(each.slices for each in scheduler.statistics(process.pid)[1:]) > 5,
        "the others share the slot",
    )
    scheduler.pause(process.pid, held.pid)
    scheduler.resume(process.pid, held.pid)
    scheduler.remove(process.pid, held.pid)

    assert state(held.pid) == "T"


def test_what_a_user_continues_takes_turns_again(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """And one that stops itself in its slice gives its slot to the others."""
    process = manager.create_process("job")
    selfish, *workers = start(["sh", "-c", "kill -STOP $$; exec sleep 120"]), start(), start()
    eventually(lambda: state(selfish.pid) == "T", "it has stopped itself")
    for worker in (selfish, *workers):
        scheduler.add(process.pid, worker.pid)
    entry = scheduler.find(process.pid, selfish.pid)
    eventually(lambda: entry.state is EntryState.HELD, "it is noticed")
    before = entry.slices
    os.kill(selfish.pid, signal.SIGCONT)

    eventually(lambda: entry.slices > before + 3, "it has slices again")

    assert entry.state in {EntryState.RUNNING, EntryState.WAITING}


def test_an_error_in_the_loop_lets_everybody_run(
    scheduler: SchedulerManager,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged, nobody stays stopped, and scheduling is tried again later."""
    from probate_scheduler import dispatcher, runqueue

    _, workers = queue(2)
    eventually(lambda: stopped(workers) == 1, "one of two is stopped")

    def fail(*_: object) -> None:
        raise RuntimeError("as told")

    with monkeypatch.context() as patch:
        patch.setattr(runqueue, "_RECOVERY", 0.1)
        patch.setattr(dispatcher.Dispatcher, "dispatch", fail)
        eventually(lambda: "as told" in caplog.text, "the failure is logged")
        eventually(lambda: stopped(workers) == 0, "both run")
    eventually(lambda: stopped(workers) == 1, "they take turns again")

    assert scheduler.totals.entries == 2


def test_a_manager_of_ones_own(start: Start) -> None:
    """Without a process manager a pid is a plain key; the resource takes a manager."""
    resource = SchedulerResource(SchedulerManager(SchedulingPolicy.FAIR, 0.01, slots=1))
    workers = [start(), start()]
    for worker in workers:
        resource.manager.add(7, worker.pid)
    eventually(lambda: stopped(workers) == 1, "one of two is stopped")

    assert resource.has_resources(7)
    assert resource.ordering().priority == 90
    assert list(resource.quiesce(7)) == []
    assert all_run(workers)
    assert resource.cleanup(7).resources_freed == 2
    assert not resource.has_resources(7)
