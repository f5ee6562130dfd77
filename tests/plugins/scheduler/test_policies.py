"""Who runs, and how much, under each policy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from processes_kernel import eventually, state
from scheduler_workers import BUSY, processor_seconds, runs, stopped

from probate import SchedulingPolicy
from probate_scheduler import EntryState

if TYPE_CHECKING:
    from scheduler_workers import Queue, Start

    from probate import ProcessManager
    from probate_scheduler import SchedulerManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def slices(scheduler: SchedulerManager, pid: int) -> list[int]:
    return [each.slices for each in scheduler.statistics(pid)]


def switches(scheduler: SchedulerManager, pid: int) -> list[int]:
    return [each.switches for each in scheduler.statistics(pid)]


def test_round_robin_gives_everybody_the_same_number_of_slices(
    scheduler: SchedulerManager, queue: Queue
) -> None:
    """One after the other: nobody is ever more than a slice or two ahead."""
    process, _ = queue(4)
    eventually(lambda: min(slices(scheduler, process.pid)) >= 20, "twenty slices each")
    found = slices(scheduler, process.pid)

    assert max(found) - min(found) <= 2


def test_never_more_run_than_there_are_slots(scheduler: SchedulerManager, queue: Queue) -> None:
    """Those who lose their slot are stopped before others are continued."""
    scheduler.configure(SchedulingPolicy.ROUND_ROBIN, 0.002, slots=2)
    process, workers = queue(5)
    # The first two are guarded, and so can be stopped, only once there are others.
    eventually(lambda: all(switches(scheduler, process.pid)), "each has been stopped")
    for _ in range(50):
        # Nothing is switched meanwhile. A signal takes effect when its target is next scheduled.
        with scheduler._queue._changed:
            running = [
                each for each in scheduler.statistics(process.pid) if each.state == "running"
            ]
            eventually(lambda: stopped(workers) >= 3, "three of five are stopped")

            assert len(running) == 2


def test_the_highest_priority_runs_and_the_others_wait(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Equals take turns; those below starve, until they are raised above."""
    scheduler.configure(SchedulingPolicy.PRIORITY, 0.002, slots=1)
    process = manager.create_process("job")
    low, high, equal = start(), start(), start()
    scheduler.add(process.pid, low.pid, priority=-1)
    scheduler.add(process.pid, high.pid, priority=5)
    scheduler.add(process.pid, equal.pid, priority=5)
    eventually(lambda: min(slices(scheduler, process.pid)[1:]) >= 5, "the equals take turns")
    had = slices(scheduler, process.pid)[0]
    eventually(lambda: min(slices(scheduler, process.pid)[1:]) >= 10, "and again")

    assert slices(scheduler, process.pid)[0] == had
    assert state(low.pid) == "T"

    scheduler.set_priority(process.pid, low.pid, 6)
    eventually(lambda: runs(low.pid), "it runs at once, and alone")
    # A processor stops what runs on it when it comes to that.
    eventually(lambda: (state(high.pid), state(equal.pid)) == ("T", "T"), "the others wait")


def test_a_higher_priority_does_not_wait_for_the_end_of_a_slice(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """With slices of a second, a newcomer above all others runs right away."""
    scheduler.configure(SchedulingPolicy.PRIORITY, 1.0, slots=1)
    process = manager.create_process("job")
    low, high = start(), start()
    scheduler.add(process.pid, low.pid)
    scheduler.add(process.pid, high.pid, priority=1)
    began = time.monotonic()
    eventually(lambda: state(low.pid) == "T", "the lower one is stopped")

    assert time.monotonic() - began < 0.9
    assert runs(high.pid)


def test_an_addition_and_a_removal_interrupt_the_longest_slice(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """The end of a slice is waited for on a condition, and what changes is acted upon at once."""
    scheduler.configure(SchedulingPolicy.ROUND_ROBIN, 1.0, slots=1)
    process = manager.create_process("job")
    first, second = start(), start()
    began = time.monotonic()
    scheduler.add(process.pid, first.pid)
    scheduler.add(process.pid, second.pid)
    eventually(lambda: state(second.pid) == "T", "the second one waits")
    scheduler.remove(process.pid, first.pid)
    eventually(lambda: runs(second.pid), "the second one has the slot")

    assert time.monotonic() - began < 0.9


def test_fair_shares_go_by_weight(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Three times the weight has about three times the slices, and the processor time with them."""
    scheduler.configure(SchedulingPolicy.FAIR, 0.005, slots=1)
    process = manager.create_process("job")
    heavy, light = start(BUSY), start(BUSY)
    scheduler.add(process.pid, heavy.pid, weight=3)
    scheduler.add(process.pid, light.pid, weight=1)
    eventually(lambda: slices(scheduler, process.pid)[1] >= 60, "sixty slices for the lighter")
    figures = scheduler.statistics(process.pid)
    times = processor_seconds(heavy.pid), processor_seconds(light.pid)

    assert 2.0 < figures[0].slices / figures[1].slices < 4.5
    # The machine may be busy with others: less than the slices say, but more.
    assert times[0] > times[1]


def test_a_changed_weight_counts_from_then_on(scheduler: SchedulerManager, queue: Queue) -> None:
    """Raised from 1 to 4, it gets most of the slices."""
    scheduler.configure(SchedulingPolicy.FAIR, 0.003, slots=1)
    process, workers = queue(2)
    scheduler.set_weight(process.pid, workers[0].pid, 4)
    eventually(lambda: slices(scheduler, process.pid)[1] >= 20, "twenty slices for the other")
    found = slices(scheduler, process.pid)

    assert found[0] > 2 * found[1]


def test_time_away_earns_nothing(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Whoever was paused, or comes late, does not have the processor alone to catch up."""
    scheduler.configure(SchedulingPolicy.FAIR, 0.002, slots=1)
    process = manager.create_process("job")
    workers = [start(), start(), start()]
    scheduler.add(process.pid, workers[0].pid)
    scheduler.add(process.pid, workers[1].pid)
    scheduler.pause(process.pid, workers[0].pid)
    scheduler.add(process.pid, workers[2].pid)
    eventually(lambda: min(slices(scheduler, process.pid)[1:]) >= 30, "the others have run")
    scheduler.resume(process.pid, workers[0].pid)
    before = slices(scheduler, process.pid)
    eventually(lambda: slices(scheduler, process.pid)[0] >= before[0] + 10, "it has run again")
    gained = [now - then for now, then in zip(slices(scheduler, process.pid), before, strict=True)]

    # Slices are of wall-clock time, and uneven where the machine is busy: some, not none.
    assert min(gained[1:]) >= 2


def test_statistics_add_up(
    manager: ProcessManager, scheduler: SchedulerManager, queue: Queue
) -> None:
    """Time run and time waited make up the time on the queue; totals include who has left."""
    process, _ = queue(2)
    eventually(lambda: min(slices(scheduler, process.pid)) >= 10, "ten slices each")
    figures = scheduler.statistics(process.pid)

    for each in figures:
        assert each.run_seconds > 0 < each.waited_seconds
        assert each.paused_seconds == 0
        assert each.switches >= 5
    manager.terminate_process(process.pid)
    totals = scheduler.totals
    assert totals.entries == 0
    assert totals.slices >= sum(each.slices for each in figures)
    assert totals.run_seconds >= sum(each.run_seconds for each in figures)


def test_a_change_of_policy_takes_effect_at_once(scheduler: SchedulerManager, queue: Queue) -> None:
    """From one slot to two, everybody runs."""
    scheduler.configure(SchedulingPolicy.PRIORITY, 1.0, slots=1)
    process, workers = queue(2)
    eventually(lambda: stopped(workers) == 1, "one of two is stopped")
    scheduler.configure(SchedulingPolicy.ROUND_ROBIN, 1.0, slots=2)

    eventually(lambda: stopped(workers) == 0, "both run")
    assert {each.state for each in scheduler.statistics(process.pid)} == {EntryState.RUNNING}
