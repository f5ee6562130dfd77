"""Fixtures of kind `scheduler`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import scheduler_workers

from probate import SchedulingPolicy, death_watch
from probate.journal.hostreaper import HostReaper

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Iterator

    from scheduler_workers import Queue, Start

    from probate import Process, ProcessManager
    from probate_scheduler import SchedulerManager


@pytest.fixture(autouse=True)
def reaper_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal of the test session needs one as well: here it is seen to come and go."""
    monkeypatch.setattr("probate_scheduler.runqueue.host_reaper", HostReaper())


@pytest.fixture
def scheduler(manager: ProcessManager) -> Iterator[SchedulerManager]:
    """The installed plugin's manager: one slot, so that two entries contend for it."""
    found: SchedulerManager = manager.orchestrator["scheduler"].manager
    found.configure(SchedulingPolicy.ROUND_ROBIN, 0.005, slots=1)
    yield found
    manager.close()
    found.join_if_idle()
    death_watch.join_if_idle()


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts OS processes that end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        started.append(scheduler_workers.start(*args, **kwargs))  # type: ignore[arg-type]  # as it says
        return started[-1]

    yield start_one
    for worker in started:
        scheduler_workers.end(worker)


@pytest.fixture
def queue(manager: ProcessManager, scheduler: SchedulerManager, start: Start) -> Queue:
    """Puts so many OS processes, sleepers unless told otherwise, on the queue of one process."""

    def queue_some(
        count: int, argv: Iterable[str] = scheduler_workers.SLEEP
    ) -> tuple[Process, list[subprocess.Popen[bytes]]]:
        process = manager.create_process("job")
        workers = [start(argv) for _ in range(count)]
        for worker in workers:
            scheduler.add(process.pid, worker.pid)
        return process, workers

    return queue_some
