"""How to put OS processes on the run queue, for tests over all kinds.

The processes are sleepers that are used again and again: ended entries leave them running.
"""

from __future__ import annotations

import atexit
import subprocess
from typing import TYPE_CHECKING, Any

from drivers import Driver

from probate import AlreadyOwnedError

if TYPE_CHECKING:
    from probate import ResourceOrchestrator

_sleepers: list[subprocess.Popen[bytes]] = []


def drivers(orchestrator: ResourceOrchestrator) -> dict[str, Driver]:
    """The driver of kind `scheduler`; nothing can be adopted, or closed without the manager."""
    scheduler = orchestrator["scheduler"].manager

    def queue(pid: int) -> Any:
        for index in range(len(_sleepers) + 1):
            os_pid = sleeper(index).pid
            try:
                scheduler.add(pid, os_pid)
            except AlreadyOwnedError:
                continue
            return scheduler.find(pid, os_pid)
        raise AssertionError("a sleeper that was just started is on the queue")

    return {
        "queued": Driver(
            "scheduler", queue, lambda pid, entry: scheduler.remove(pid, entry.os_pid)
        ),
    }


def sleeper(index: int) -> subprocess.Popen[bytes]:
    if not _sleepers:
        atexit.register(_end_all)
    if index == len(_sleepers):
        _sleepers.append(subprocess.Popen(["sleep", "3600"], start_new_session=True))
    return _sleepers[index]


def _end_all() -> None:
    for sleeper in _sleepers:
        sleeper.kill()
        sleeper.wait()
