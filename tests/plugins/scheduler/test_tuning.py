"""Niceness and CPU affinity: set on all threads, and put back; the kernel tells."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes_kernel import eventually, state

from probate import OsProcess
from probate_scheduler import RunQueueEntry, tuning

if TYPE_CHECKING:
    from scheduler_workers import Start

    from probate import ProcessManager
    from probate_scheduler import SchedulerManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

privileged = pytest.mark.needs_root(reason="to better a niceness takes CAP_SYS_NICE")

CPUS = os.sched_getaffinity(0)
#: What all that is started here has at first.
NICE = os.getpriority(os.PRIO_PROCESS, 0)
THREADED = """
import threading, time
for _ in range(3):
    threading.Thread(target=time.sleep, args=(120,)).start()
"""


def nice_of(os_pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, os_pid)


def threads_of(os_pid: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{os_pid}/task").iterdir()]


@privileged
@pytest.mark.parametrize("how", ["remove", "terminate"])
def test_both_are_put_back(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start, how: str
) -> None:
    """As they were before the first of several changes."""
    process = manager.create_process("job")
    worker = start()
    os.setpriority(os.PRIO_PROCESS, worker.pid, 2)
    scheduler.add(process.pid, worker.pid)
    for nice in (5, 7):
        scheduler.set_nice(process.pid, worker.pid, nice)
        assert nice_of(worker.pid) == nice
    for cpu in CPUS:
        scheduler.set_affinity(process.pid, worker.pid, {cpu})
        assert os.sched_getaffinity(worker.pid) == {cpu}

    if how == "remove":
        scheduler.remove(process.pid, worker.pid)
    else:
        assert manager.terminate_process(process.pid).is_success

    assert nice_of(worker.pid) == 2
    assert os.sched_getaffinity(worker.pid) == CPUS


@privileged
def test_all_threads_are_changed_and_put_back(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Niceness belongs to a thread on Linux (sched(7)); each gets its own back."""
    process = manager.create_process("job")
    worker = start([sys.executable, "-S", "-c", THREADED])
    eventually(lambda: len(threads_of(worker.pid)) == 4, "it has its threads")
    *others, last = threads_of(worker.pid)
    os.setpriority(os.PRIO_PROCESS, last, 3)
    scheduler.add(process.pid, worker.pid)
    scheduler.set_nice(process.pid, worker.pid, 9)

    assert {nice_of(thread) for thread in threads_of(worker.pid)} == {9}

    scheduler.remove(process.pid, worker.pid)

    assert {nice_of(thread) for thread in others} == {NICE}
    assert nice_of(last) == 3


def test_what_somebody_else_has_set_since_is_left_alone(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Restored only where it still is as we set it."""
    process = manager.create_process("job")
    worker = start()
    scheduler.add(process.pid, worker.pid)
    scheduler.set_nice(process.pid, worker.pid, 5)
    os.setpriority(os.PRIO_PROCESS, worker.pid, 11)
    manager.terminate_process(process.pid)

    assert nice_of(worker.pid) == 11


def test_a_restoration_that_the_kernel_refuses_is_in_the_account(
    manager: ProcessManager,
    scheduler: SchedulerManager,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counts tell what was done: it is an error with the process and the way out."""
    process = manager.create_process("job")
    worker = start()
    scheduler.add(process.pid, worker.pid)
    scheduler.set_nice(process.pid, worker.pid, 5)
    entry = scheduler.find(process.pid, worker.pid)

    def refuse(_thread: int, _nice: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(entry.niceness, "_write", refuse)

    result = manager.terminate_process(process.pid)

    assert [error.outcome for error in result.errors] == ["failed"]
    assert f"OS process {worker.pid}" in str(result.errors[0])
    assert "CAP_SYS_NICE" in str(result.errors[0])
    assert scheduler.totals.entries == 0


def test_cpus_that_are_not_there_are_refused_and_change_nothing(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """The kernel says which CPUs there are (sched_setaffinity(2), EINVAL)."""
    process = manager.create_process("job")
    worker = start()
    scheduler.add(process.pid, worker.pid)

    for cpus in ({1023}, {2**40}):
        with pytest.raises(ValueError, match="none of the CPUs"):
            scheduler.set_affinity(process.pid, worker.pid, cpus)

    assert os.sched_getaffinity(worker.pid) == CPUS


@privileged
def test_a_failure_in_the_midst_changes_nothing(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """All threads or none."""
    process = manager.create_process("job")
    worker = start([sys.executable, "-S", "-c", THREADED])
    eventually(lambda: len(threads_of(worker.pid)) == 4, "it has its threads")
    scheduler.add(process.pid, worker.pid)
    written: list[int] = []

    def write(thread: int, nice: int) -> None:
        written.append(thread)
        if len(written) == 3:
            raise PermissionError(13, "as told")
        os.setpriority(os.PRIO_PROCESS, thread, nice)

    entry = scheduler.find(process.pid, worker.pid)
    setting: tuning.Setting[int] = tuning.Setting("test", entry.process, nice_of, write)
    with pytest.raises(PermissionError, match="as told"):
        setting.apply(6)

    assert {nice_of(thread) for thread in threads_of(worker.pid)} == {NICE}


def test_a_recycled_pid_is_never_touched(start: Start) -> None:
    """As psutil's pid reuse: what has been reaped is gone, whoever has its pid now."""
    worker, successor = start(), start()
    with OsProcess.open(worker.pid) as pinned:
        entry = RunQueueEntry(pinned, 0, 1)
        worker.kill()
        worker.wait()
        # The successor's pid in the place of the dead one's: as if it had been given out again.
        pinned.os_pid = successor.pid

        with pytest.raises(ProcessLookupError):
            entry.niceness.apply(7)
        with pytest.raises(ProcessLookupError):
            entry.affinity.apply(frozenset({0}))
        entry.stop()
        before = state(successor.pid)
        entry.resume()

    assert before in {"R", "S"}
    assert nice_of(successor.pid) == NICE
    assert os.sched_getaffinity(successor.pid) == CPUS
