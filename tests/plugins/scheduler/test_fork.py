"""A forked child owns nothing and schedules nothing of its parent's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from core_scripts import in_forked_child
from processes_kernel import eventually
from reapers import is_reaper
from scheduler_workers import end, reaper_of, stopped
from scheduler_workers import start as start_worker

from probate import SchedulingPolicy
from probate.testing import KernelView
from probate_scheduler import SchedulerManager

if TYPE_CHECKING:
    from scheduler_workers import Queue, Start

    from probate import ProcessManager

# From 3.12 on, os.fork() warns where there are several threads: these tests are about that.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
    pytest.mark.usefixtures("nothing_remains"),
]


def test_a_child_owns_nothing_and_the_parent_goes_on(
    manager: ProcessManager, scheduler: SchedulerManager, queue: Queue
) -> None:
    """Its queue is empty, its cleanup frees nothing, and it does not hold up the reaper."""
    process, workers = queue(3)
    eventually(lambda: stopped(workers) == 2, "two of three are stopped")
    reaper = reaper_of(scheduler)
    assert reaper

    def child() -> object:
        freed = scheduler.cleanup(process.pid).resources_freed
        return (
            freed,
            scheduler.totals.entries,
            process.pid in scheduler.table,
            len(KernelView.take().sockets),
        )

    assert in_forked_child(child) == "(0, 0, False, 0)"
    had = scheduler.totals.slices
    eventually(lambda: scheduler.totals.slices > had + 5, "slices go on in the parent")
    assert manager.terminate_process(process.pid).stats.resources_freed == 3
    assert not is_reaper(reaper)


def test_a_child_has_a_queue_of_its_own(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """With a thread and a reaper of its own, also when the fork falls into a slice."""
    process = manager.create_process("parents")
    for _ in range(2):
        scheduler.add(process.pid, start().pid)

    def child() -> object:
        own = SchedulerManager(SchedulingPolicy.ROUND_ROBIN, 0.002, slots=1)
        workers = [start_worker() for _ in range(2)]
        for worker in workers:
            own.add(1, worker.pid)
        eventually(lambda: min(each.slices for each in own.statistics(1)) > 2, "slices")
        freed = own.cleanup(1).resources_freed
        left = stopped(workers)
        for worker in workers:
            end(worker)
        return (freed, left)

    for _ in range(5):
        assert in_forked_child(child, timeout=20) == "(2, 0)"
