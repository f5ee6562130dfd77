"""Nothing stays stopped, whatever the host dies of; reapers come and go with the need."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes_kernel import eventually, state
from reapers import is_reaper
from scheduler_workers import (
    all_run,
    end,
    ended,
    none_stopped,
    reaper_of,
    stopped,
)
from scheduler_workers import start as start_worker

from probate import SchedulingPolicy
from probate_scheduler import ReaperUnavailableError, SchedulerManager

if TYPE_CHECKING:
    from scheduler_workers import Queue, Start

    from probate import ProcessManager

HOST = """
import os, signal, subprocess, sys, time
from probate_scheduler import SchedulerManager

scheduler = SchedulerManager("round_robin", 0.001, slots=1)
workers = [subprocess.Popen(["sleep", "120"], start_new_session=True) for _ in range(4)]
for worker in workers:
    scheduler.add(1, worker.pid)
while min(each.slices for each in scheduler.statistics(1)) < 3:
    time.sleep(0.001)
print(*(worker.pid for worker in workers), flush=True)
{then}
"""

#: In the host: its end of the reaper's socket.
SOCKET = "scheduler._queue._reaper._socket"

# From 3.12 on, os.fork() warns where there are several threads.
forking = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def fork_host(workers: list[subprocess.Popen[bytes]]) -> tuple[int, int]:
    """Fork an interpreter that slices `workers`; return its pid and its reaper's once it does."""
    reader, writer = os.pipe()
    host = os.fork()
    if host == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            scheduler = SchedulerManager(SchedulingPolicy.ROUND_ROBIN, 0.001, slots=1)
            for worker in workers:
                scheduler.add(1, worker.pid)
            eventually(lambda: min(each.slices for each in scheduler.statistics(1)) > 1, "slices")
            os.write(writer, b"%d" % (reaper_of(scheduler) or 0))
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], 20)
    assert ready
    reaper = int(os.read(reader, 20))
    os.close(reader)
    return host, reaper


@forking
@pytest.mark.usefixtures("nothing_remains")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_scheduler_killed_in_mid_slice_leaves_no_stopped_process(number: signal.Signals) -> None:
    """Twelve times each by the default disposition of SIGTERM and by SIGKILL; no reaper stays."""
    workers = [start_worker() for _ in range(4)]
    try:
        for _ in range(12):
            host, reaper = fork_host(workers)
            assert is_reaper(reaper)
            eventually(lambda: stopped(workers) == 3, "three of four are stopped")
            os.kill(host, number)
            _, status = os.waitpid(host, 0)

            assert os.waitstatus_to_exitcode(status) == -number
            eventually(lambda: all_run(workers), "all are continued")
            eventually(lambda: not is_reaper(reaper), "its reaper is gone")  # noqa: B023  called at once
    finally:
        for worker in workers:
            end(worker)


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("signal.pause()", None),
        ("os._exit(3)", 3),
        ("sys.exit(4)", 4),
        ("os.execv('/bin/sh', ['sh', '-c', 'sleep 0.2; exit 5'])", 5),
        # A child that outlives the host, having closed its end of the socket.
        ("if os.fork() == 0: sys.stdin.read(); os._exit(0)\nos._exit(6)", 6),
        # One that keeps it open: only the host's pidfd tells then.
        (f"subprocess.Popen(['cat'], pass_fds=[{SOCKET}.fileno()])\nos._exit(7)", 7),
    ],
    ids=["SIGTERM", "_exit", "exit", "exec", "fork", "inherited"],
)
def test_an_interpreter_that_ends_otherwise_leaves_no_stopped_process(
    then: str, code: int | None
) -> None:
    """Without any cleanup: killed, exited, replaced by another program, survived by a child."""
    host = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOST.format(then=then)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert host.stdin is not None
    assert host.stdout is not None
    with host.stdout as stdout:
        os_pids = [int(word) for word in stdout.readline().split()]
    # What outlives the host lives until its standard input ends.
    with host.stdin, ended(os_pids):
        assert len(os_pids) == 4
        if code is None:
            eventually(lambda: not none_stopped(os_pids), "some are stopped")
            host.send_signal(signal.SIGTERM)

        assert host.wait(20) == (-signal.SIGTERM if code is None else code)
        eventually(lambda: none_stopped(os_pids), "all are continued")


def test_a_reaper_is_nobodys_child_and_holds_nothing(
    manager: ProcessManager, scheduler: SchedulerManager, start: Start
) -> None:
    """Its own session, no parent here, one socket and pidfds; SIGTERM does not end it."""
    process = manager.create_process("job")
    workers = [start(), start()]
    with open(os.devnull) as inheritable:
        os.set_inheritable(inheritable.fileno(), True)
        for worker in workers:
            scheduler.add(process.pid, worker.pid)
        eventually(
            lambda: min(each.switches for each in scheduler.statistics(process.pid)) > 0,
            "both have been stopped",
        )
    reaper = reaper_of(scheduler)
    assert reaper

    def held() -> list[str]:
        fds = Path(f"/proc/{reaper}/fd").iterdir()
        return sorted(str(fd.readlink()).partition(":")[0] for fd in fds)

    eventually(lambda: len(held()) >= 6, "it has taken all requests")
    null, pidfds, last = held()[:2], held()[2:-1], held()[-1]

    assert (null, last) == (["/dev/null"] * 2, "socket")
    assert pidfds in (["anon_inode"] * 3, ["pidfd"] * 3)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(reaper, number)
    scheduler.remove(process.pid, workers[0].pid)

    assert os.getsid(reaper) not in {os.getsid(0), os.getsid(workers[0].pid)}
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        assert str(reaper) not in file.read().split()
    assert is_reaper(reaper)
    manager.terminate_process(process.pid)
    assert not is_reaper(reaper)


@pytest.mark.usefixtures("nothing_remains")
def test_a_reaper_that_dies_is_replaced(
    scheduler: SchedulerManager,
    queue: Queue,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody is stopped without one: all run at once, until the next one guards them."""
    process, workers = queue(3)
    scheduler.pause(process.pid, workers[0].pid)
    for _ in range(3):
        eventually(lambda: stopped(workers) == 2, "two of three are stopped")
        reaper = reaper_of(scheduler)
        assert reaper
        os.kill(reaper, signal.SIGKILL)
        eventually(lambda: reaper_of(scheduler) not in {None, reaper}, "there is another one")  # noqa: B023  called at once

    assert "reaper has died" in caplog.text
    eventually(lambda: state(workers[0].pid) == "T", "the paused one is paused again")


@pytest.mark.usefixtures("nothing_remains")
@pytest.mark.parametrize("program", ["/bin/false", "/nonexistent", ""])
def test_without_a_reaper_nothing_is_stopped(
    manager: ProcessManager,
    scheduler: SchedulerManager,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
) -> None:
    """The reaper was not armed and nobody knew: here it is an error, and nothing is queued."""
    process = manager.create_process("job")
    workers = [start(), start()]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", program)
        scheduler.add(process.pid, workers[0].pid)
        with pytest.raises(ReaperUnavailableError, match="reaper"):
            scheduler.add(process.pid, workers[1].pid)
        with pytest.raises(ReaperUnavailableError):
            scheduler.pause(process.pid, workers[0].pid)

        assert scheduler.totals.entries == 1
        assert stopped(workers) == 0

    scheduler.add(process.pid, workers[1].pid)
    eventually(lambda: stopped(workers) == 1, "with one they take turns")


@pytest.mark.usefixtures("nothing_remains")
def test_what_a_user_has_stopped_is_not_the_reapers_to_continue(start: Start) -> None:
    """A host that dies leaves it as whoever stopped it made it."""
    held, *workers = start(), start(), start()
    os.kill(held.pid, signal.SIGSTOP)
    scheduler = SchedulerManager(SchedulingPolicy.ROUND_ROBIN, 0.005, slots=1)
    for worker in (held, *workers):
        scheduler.add(1, worker.pid)
    entry = scheduler.find(1, held.pid)
    eventually(lambda: entry.is_held and entry.reaper is None, "it is noticed, and unguarded")
    eventually(lambda: stopped(workers) == 1, "the others take turns")
    loan = scheduler._queue._loan
    assert loan is not None
    # As if the host had died: the reaper's socket is at its end.
    with scheduler._queue._changed:
        loan.reaper.close()
        eventually(lambda: stopped(workers) == 0, "the others are continued")

        assert state(held.pid) == "T"
        scheduler._queue._reaper_died(loan)
    scheduler.cleanup(1)
