"""OS processes to be scheduled, and what the kernel says of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from processes_kernel import stat, state

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from probate import Process
    from probate_scheduler import SchedulerManager

    #: The fixtures `start` and `queue`.
    Start = Callable[..., subprocess.Popen[bytes]]
    Queue = Callable[..., tuple[Process, list[subprocess.Popen[bytes]]]]

BUSY = ("sh", "-c", "while :; do :; done")
SLEEP = ("sleep", "120")
#: Leads a group with a child in it, whose pid it prints.
FAMILY = ("sh", "-c", "sleep 120 & echo $!; wait")

_TICKS = os.sysconf("SC_CLK_TCK")


def start(argv: Iterable[str] = SLEEP, *, own_session: bool = True) -> subprocess.Popen[bytes]:
    """Start an OS process, by default as the leader of a session and a group of its own."""
    return subprocess.Popen(list(argv), start_new_session=own_session)


def end(worker: subprocess.Popen[bytes]) -> None:
    """Kill and reap."""
    worker.kill()
    worker.wait()


def runs(os_pid: int) -> bool:
    """Whether it is there and not stopped: runnable, or asleep."""
    return state(os_pid) in {"R", "S", "D"}


def stopped(workers: Iterable[subprocess.Popen[bytes]]) -> int:
    """How many are stopped."""
    return [state(worker.pid) for worker in workers].count("T")


def all_run(workers: Iterable[subprocess.Popen[bytes]]) -> bool:
    """As `runs`, of all."""
    return all(runs(worker.pid) for worker in workers)


def processor_seconds(os_pid: int) -> float:
    """Processor time so far, user and system."""
    found = stat(os_pid)
    return (int(found[11]) + int(found[12])) / _TICKS if found else 0.0


def reaper_of(scheduler: SchedulerManager) -> int | None:
    """The pid of the reaper that works for this scheduler, as the kernel has it; None without."""
    reaper = scheduler._queue._reaper
    if reaper is None or reaper.pidfd == -1:
        return None
    try:
        text = Path(f"/proc/self/fdinfo/{reaper.pidfd}").read_text()
    except FileNotFoundError:
        return None
    # Of a pidfd it says whom it refers to (proc(5)); -1 once that one was reaped.
    info = dict(line.split(":", 1) for line in text.splitlines())
    os_pid = int(info.get("Pid", -1))
    return os_pid if os_pid > 0 else None


def none_stopped(os_pids: Collection[int]) -> bool:
    """Whether none of these is stopped."""
    return all(state(os_pid) != "T" for os_pid in os_pids)


@contextlib.contextmanager
def ended(os_pids: Iterable[int]) -> Iterator[None]:
    """Kill on leaving what was started by somebody who is gone by then."""
    try:
        yield
    finally:
        for os_pid in os_pids:
            os.kill(os_pid, signal.SIGKILL)
