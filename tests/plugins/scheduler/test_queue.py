"""On and off the run queue; the states in /proc are the witness."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from processes_kernel import eventually, state
from scheduler_driver import drivers
from scheduler_workers import BUSY, FAMILY, all_run, end, reaper_of, runs, stopped

from probate import (
    AlreadyOwnedError,
    CleanupStats,
    NotOwnedError,
    ProcessManager,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
    SchedulingPolicy,
)
from probate_scheduler import EntryState

if TYPE_CHECKING:
    from collections.abc import Callable

    from scheduler_workers import Queue, Start

    from probate_scheduler import SchedulerManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_one_slot_is_shared_and_everybody_runs_at_the_end(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Three contend for one slot: two are stopped at any time; the termination continues all."""
    process = manager.create_process("job")
    workers = [start() for _ in range(3)]
    ids = [scheduler.add(process.pid, worker.pid) for worker in workers]
    eventually(lambda: stopped(workers) == 2, "two of three are stopped")
    eventually(
        lambda: min(each.slices for each in scheduler.statistics(process.pid)) >= 3,
        "everybody has had three slices",
    )

    result = manager.terminate_process(process.pid)

    assert len(set(ids)) == 3
    assert result.is_success
    assert result.stats.by_type == {"scheduler": 3}
    assert all_run(workers)


def test_nobody_is_stopped_while_there_are_slots_enough(
    scheduler: SchedulerManager, queue: Queue
) -> None:
    """As many as there are slots run on, without a reaper and without switches."""
    scheduler.configure(SchedulingPolicy.ROUND_ROBIN, 0.001, slots=2)
    process, workers = queue(2)
    eventually(
        lambda: [each.slices for each in scheduler.statistics(process.pid)] == [1, 1],
        "both have a slice without an end",
    )

    assert stopped(workers) == 0
    assert reaper_of(scheduler) is None
    assert scheduler.totals.switches == 0


def test_slots_are_by_default_the_cpus_of_this_host(scheduler: SchedulerManager) -> None:
    """No CPU idles while somebody waits (sched_getaffinity(2))."""
    scheduler.configure(SchedulingPolicy.FAIR, 1)

    assert scheduler.totals.slots == len(os.sched_getaffinity(0))
    assert (scheduler.totals.policy, scheduler.totals.quantum) == ("fair", 1.0)


@pytest.mark.parametrize("method", ["remove", "close"])
def test_removing_one_frees_its_slot(
    scheduler: SchedulerManager, queue: Queue, method: str
) -> None:
    """What was removed runs, whatever it was; so does the last one that is left."""
    process, workers = queue(2)
    eventually(lambda: stopped(workers) == 1, "one of two is stopped")

    getattr(scheduler, method)(process.pid, workers[0].pid)

    assert runs(workers[0].pid)
    eventually(lambda: stopped(workers) == 0, "the other one runs on")
    with pytest.raises(NotOwnedError, match="nobody"):
        scheduler.remove(process.pid, workers[0].pid)


def test_removing_what_has_died_does_nothing(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """It has left by itself, whoever was quicker."""
    process = manager.create_process("job")
    worker = start()
    scheduler.add(process.pid, worker.pid)
    worker.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    scheduler.remove(process.pid, worker.pid)
    end(worker)
    scheduler.remove(process.pid, worker.pid)

    assert not manager.orchestrator.has_resources(process.pid)


def test_an_entry_leaves_when_its_process_dies(
    manager: ProcessManager, scheduler: SchedulerManager, queue: Queue
) -> None:
    """By event: nobody asks, and nothing is owned or freed any more."""
    process, workers = queue(3)
    eventually(lambda: stopped(workers) == 2, "two of three are stopped")
    for worker in workers:
        worker.kill()
    eventually(lambda: not manager.orchestrator.has_resources(process.pid), "all have left")
    eventually(lambda: scheduler.totals.entries == 0, "the queue has noticed")

    assert manager.terminate_process(process.pid).stats.resources_freed == 0


def test_one_that_has_exited_already_may_be_added_and_leaves_at_once(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """A spawned program may be quicker than its scheduling; that is no error."""
    process = manager.create_process("quick")
    worker = start(["true"])
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)

    assert scheduler.add(process.pid, worker.pid) > 0
    eventually(lambda: not manager.orchestrator.has_resources(process.pid), "it has left")


def test_pausing_stops_and_resuming_continues(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Also where there are slots enough; both are idempotent."""
    process = manager.create_process("job")
    worker = start()
    scheduler.add(process.pid, worker.pid)
    for _ in range(2):
        scheduler.pause(process.pid, worker.pid)

        eventually(lambda: state(worker.pid) == "T", "it is stopped")
        assert scheduler.find(process.pid, worker.pid).state is EntryState.PAUSED

    for _ in range(2):
        scheduler.resume(process.pid, worker.pid)

        eventually(lambda: runs(worker.pid), "it is continued")
    assert scheduler.statistics(process.pid)[0].paused_seconds > 0


def test_all_of_one_owner_are_paused_and_the_others_run(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Paused ones take no turns; removing a paused one continues it."""
    a, b = manager.create_process("a"), manager.create_process("b")
    paused = [start(), start()]
    for worker in paused:
        scheduler.add(a.pid, worker.pid)
    other = start()
    scheduler.add(b.pid, other.pid)
    scheduler.pause_all(a.pid)
    eventually(lambda: stopped(paused) == 2, "both are stopped")
    eventually(lambda: runs(other.pid), "the other has the slot to itself")

    scheduler.remove(a.pid, paused[0].pid)

    assert runs(paused[0].pid)
    scheduler.resume_all(a.pid)
    eventually(lambda: stopped([paused[1], other]) == 1, "they take turns")


def test_a_process_stands_in_the_queue_once(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Two entries would stop and continue it against one another; the error names the owner."""
    a, b = manager.create_process("a"), manager.create_process("b")
    worker = start()
    scheduler.add(a.pid, worker.pid)

    for pid in (a.pid, b.pid):
        with pytest.raises(AlreadyOwnedError, match=f"process {a.pid}"):
            scheduler.add(pid, worker.pid)

    assert scheduler.totals.entries == 1


def test_one_owner_cannot_touch_anothers_entry(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Release is owner-checked, and so is everything else."""
    a, b = manager.create_process("a"), manager.create_process("b")
    worker = start()
    scheduler.add(a.pid, worker.pid)
    calls: list[Callable[[], object]] = [
        lambda: scheduler.remove(b.pid, worker.pid),
        lambda: scheduler.pause(b.pid, worker.pid),
        lambda: scheduler.resume(b.pid, worker.pid),
        lambda: scheduler.set_priority(b.pid, worker.pid, 1),
        lambda: scheduler.set_weight(b.pid, worker.pid, 1),
        lambda: scheduler.set_nice(b.pid, worker.pid, 1),
        lambda: scheduler.set_affinity(b.pid, worker.pid, {0}),
    ]

    for call in calls:
        with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
            call()


def test_an_entry_is_transferred_with_its_process(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """The new owner's termination lets go of it; the old one's does not."""
    a, b = manager.create_process("a"), manager.create_process("b")
    workers = [start(), start()]
    for worker in workers:
        scheduler.add(a.pid, worker.pid)
    entry = scheduler.find(a.pid, workers[0].pid)
    a.transfer(entry, b)

    assert a.terminate().stats.resources_freed == 1
    assert not entry.is_removed
    assert b.terminate().stats.resources_freed == 1
    assert entry.is_removed


def test_a_transferred_entry_leaves_its_new_owner_when_its_process_dies(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Whoever owns it by then."""
    a, b = manager.create_process("a"), manager.create_process("b")
    worker = start()
    scheduler.add(a.pid, worker.pid)
    a.transfer(scheduler.find(a.pid, worker.pid), b)
    worker.kill()

    eventually(lambda: not manager.orchestrator.has_resources(b.pid), "it has left")

    assert scheduler.totals.entries == 0
    assert not manager.orchestrator.has_resources(a.pid)


def test_a_group_is_stopped_as_a_whole(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """A worker that leads its group is sliced with its children (pidfd_send_signal(2))."""
    process = manager.create_process("family")
    parent = start(FAMILY)
    members: list[int] = []

    def has_child() -> bool:
        with open(f"/proc/{parent.pid}/task/{parent.pid}/children") as file:
            members[:] = [int(word) for word in file.read().split()]
        return bool(members)

    eventually(has_child, "the worker has a child")
    scheduler.add(process.pid, parent.pid)
    scheduler.pause(process.pid, parent.pid)
    eventually(lambda: (state(parent.pid), state(members[0])) == ("T", "T"), "both are stopped")

    # Its leader dead and reaped, the group is continued all the same.
    end(parent)

    eventually(lambda: runs(members[0]), "the child is continued")
    os.kill(members[0], signal.SIGKILL)

    assert scheduler.totals.entries == 0


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("add", ("1",), TypeError),
        ("add", (True,), TypeError),
        ("add", (0,), ValueError),
        ("add", (-1,), ValueError),
        ("add", (os.getpid(),), ValueError),
        ("add", (2**22 + 1,), ProcessLookupError),
        ("remove", ("1",), TypeError),
        ("pause", (1.5,), TypeError),
        ("set_priority", (1, "high"), TypeError),
        ("set_weight", (1, 0), ValueError),
        ("set_weight", (1, 10001), ValueError),
        ("set_weight", (1, 1.5), TypeError),
        ("set_nice", (1, 20), ValueError),
        ("set_nice", (1, -21), ValueError),
        ("set_nice", (1, "9"), TypeError),
        ("set_affinity", (1, []), ValueError),
        ("set_affinity", (1, [-1]), ValueError),
        ("set_affinity", (1, "0"), TypeError),
        ("set_affinity", (1, 0), TypeError),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_acquired(
    manager: ProcessManager,
    scheduler: SchedulerManager,
    method: str,
    arguments: tuple[Any, ...],
    error: type[Exception],
) -> None:
    """A clear error, and nothing on the queue."""
    process = manager.create_process("bad")

    with pytest.raises(error):
        getattr(scheduler, method)(process.pid, *arguments)

    assert not manager.orchestrator.has_resources(process.pid)
    assert scheduler.totals.entries == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"weight": 0}, ValueError),
        ({"weight": True}, TypeError),
        ({"weight": 2.0}, TypeError),
        ({"priority": 1.0}, TypeError),
    ],
)
def test_bad_scheduling_parameters_are_refused(
    manager: ProcessManager,
    scheduler: SchedulerManager,
    start: Start,
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    """Before the process is looked at."""
    process = manager.create_process("bad")

    with pytest.raises(error):
        scheduler.add(process.pid, start().pid, **options)

    assert not manager.orchestrator.has_resources(process.pid)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("lottery", 0.1), ValueError),
        (("fair", 0.0009), ValueError),
        (("fair", 1.1), ValueError),
        (("fair", float("nan")), ValueError),
        (("fair", "1"), TypeError),
        (("fair", True), TypeError),
    ],
)
def test_a_bad_configuration_changes_nothing(
    scheduler: SchedulerManager, arguments: tuple[Any, Any], error: type[Exception]
) -> None:
    """The quantum is 1 ms to 1 s, and there are three policies."""
    before = scheduler.totals

    with pytest.raises(error):
        scheduler.configure(*arguments)
    with pytest.raises(ValueError, match="slots"):
        scheduler.configure(SchedulingPolicy.FAIR, 0.1, slots=0)

    assert scheduler.totals == before


def test_a_limit_refuses_before_anything_is_queued(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Limits count entries."""
    limits = ResourceLimits(by_kind={"scheduler": {"max_count": 1}})  # type: ignore[dict-item]  # as from a file
    process = manager.create_process("limited", limits=limits)
    scheduler.add(process.pid, start().pid)

    with pytest.raises(ResourceLimitExceeded, match="at most 1"):
        scheduler.add(process.pid, start().pid)

    assert scheduler.totals.entries == 1


def test_a_terminated_owner_gets_nothing(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Late registration for a terminated pid leaked for ever: it is refused."""
    process = manager.create_process("dead")
    manager.terminate_process(process.pid)

    with pytest.raises(ProcessTerminatedError):
        scheduler.add(process.pid, start().pid)


def test_usage_tells_each_entry(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Pid, parameters and state."""
    process = manager.create_process("job")
    worker = start()
    with manager.process("current") as current:
        scheduler.add(worker.pid, priority=3, weight=7)
        usage = manager.orchestrator.usage(current.pid)["scheduler"]

        assert usage.count == 1
        assert usage.resources[0].description == (
            f"OS process {worker.pid}, priority 3, weight 7, running"
        )
    assert manager.orchestrator.usage(process.pid) == {}


def test_nothing_to_free(manager: ProcessManager, scheduler: SchedulerManager) -> None:
    """A process without entries has an empty account, and a second cleanup finds nothing."""
    process = manager.create_process("idle")
    stats = manager.terminate_process(process.pid).stats

    assert stats.model_copy(update={"duration_seconds": 0}) == CleanupStats()
    assert scheduler.cleanup(process.pid) == CleanupStats()


def test_the_driver_queues_real_processes(
    manager: ProcessManager, scheduler: SchedulerManager
) -> None:
    """For tests over all kinds: made, given back, and made again with the same OS processes."""
    driver = drivers(manager.orchestrator)["queued"]
    process = manager.create_process("driven")
    entries = [driver.make(process.pid) for _ in range(3)]

    eventually(
        lambda: [state(entry.os_pid) for entry in entries].count("T") == 2, "two are stopped"
    )
    driver.give_back(process.pid, entries[0])
    assert runs(entries[0].os_pid)
    assert driver.make(process.pid).os_pid == entries[0].os_pid
    assert manager.terminate_process(process.pid).stats.by_type == {driver.kind: 3}
    assert all(runs(entry.os_pid) for entry in entries)


def test_a_busy_process_is_continued_in_the_midst_of_its_work(
    manager: ProcessManager, queue: Queue
) -> None:
    """Stopped while it computes, it computes on when it is let go."""
    process, workers = queue(2, BUSY)
    eventually(lambda: stopped(workers) == 1, "one of two is stopped")
    manager.terminate_process(process.pid)

    assert stopped(workers) == 0
