"""Spawning and ending from threads, on event loops, and across forks, all at the same time."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from children import exit_code_of_fork
from processes_kernel import eventually
from spawn_house import CONTAINMENTS, PATIENCE, house, is_alive
from threads import in_thread

from probate import (
    Process,
    ProcessManager,
    ProcessNotFoundError,
    ProcessState,
    ProcessTerminatedError,
)
from probate.process import ManagerClosedError
from probate_processes.procfs import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

# From 3.12 on, os.fork() warns where there are several threads: these tests are about that.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

SLEEP = ["sleep", "1000"]


@pytest.fixture(params=CONTAINMENTS)
def manager(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProcessManager]:
    with house(monkeypatch, request.param) as manager:
        yield manager


def test_thirty_two_threads_spawn_kill_and_terminate(manager: ProcessManager) -> None:
    """Each thread's processes end as that thread has ended them; nobody else's do."""

    def work(seed: int) -> list[tuple[int | None, int]]:
        turn = random.Random(seed)
        codes: list[tuple[int | None, int]] = []
        for _ in range(2):
            number = turn.randrange(1, 200)
            for argv, end in (
                (["sh", "-c", f"exit {number}"], None),
                (SLEEP, signal.SIGKILL),
                (SLEEP, signal.SIGTERM),
            ):
                process = manager.spawn(argv)
                if end is signal.SIGKILL:
                    process.send_signal(end)
                elif end is signal.SIGTERM:
                    assert process.terminate().is_success
                manager.wait(process.pid, PATIENCE)
                codes.append((process.returncode, number if end is None else -end))
        return codes

    running = [in_thread(lambda seed=seed: work(seed)) for seed in range(32)]  # type: ignore[misc]  # bound here
    codes: list[tuple[int | None, int]] = []
    for thread, outcome in running:
        thread.join(PATIENCE)
        assert isinstance(outcome[0], list), outcome
        codes += outcome[0]

    assert len(codes) == 32 * 2 * 3
    assert [found for found, _ in codes] == [expected for _, expected in codes]
    assert manager.list_processes() == []


def test_many_end_at_once_on_a_loop(manager: ProcessManager) -> None:
    """Terminated, killed from outside and waited for, all in one loop that goes on turning."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def main() -> list[bool]:
        ticker = asyncio.create_task(turn())
        processes = [manager.spawn(SLEEP) for _ in range(40)]
        for process in processes[::2]:
            process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            results = await asyncio.gather(
                *(manager.terminate_process_async(process.pid) for process in processes),
                *(manager.wait_async(process.pid) for process in processes),
            )
        ticker.cancel()
        assert [process.returncode for process in processes[::2]] == [-signal.SIGKILL] * 20
        assert [process.returncode for process in processes[1::2]] == [-signal.SIGTERM] * 20
        return [result.is_success for result in results]

    assert asyncio.run(main()) == [True] * 80
    assert turns > 0
    assert manager.list_processes() == []


def test_a_cancelled_termination_is_finished_all_the_same(manager: ProcessManager) -> None:
    """Cancelled in its grace: the grace ends at once, and the process with it."""
    script = "trap '' TERM; echo; while :; do sleep .01; done"
    process = manager.spawn(["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as stdout:
        stdout.readline()

    async def main() -> None:
        task = asyncio.create_task(manager.terminate_process_async(process.pid, grace=600))
        # It takes its first steps at once, up to its grace.
        await asyncio.sleep(0)
        assert process.state is ProcessState.TERMINATING
        task.cancel()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())

    assert process.state is ProcessState.TERMINATED
    assert process.returncode == -signal.SIGKILL
    assert not is_alive(process.os_pid or 0)


def spawn_until_refused(
    manager: ProcessManager, parent: Process | None, made: list[Process]
) -> type[Exception]:
    """Spawn until the manager or the parent takes no more; at most 200."""
    for _ in range(200):
        try:
            made.append(manager.spawn(SLEEP, parent=parent))
        except (ManagerClosedError, ProcessTerminatedError) as error:
            return type(error)
    return OverflowError


@pytest.mark.parametrize(
    ("what", "refusal"), [("parent", ProcessTerminatedError), ("manager", ManagerClosedError)]
)
@pytest.mark.parametrize("containment", CONTAINMENTS)
def test_spawning_races_the_end_of_whom_it_is_for(
    monkeypatch: pytest.MonkeyPatch, containment: str, what: str, refusal: type[Exception]
) -> None:
    """What was spawned in time is ended with it; what was not is refused; nobody survives."""
    for turn in range(6):
        with house(monkeypatch, containment) as manager:
            made, refusals = race(manager, what, 2 * turn)

            assert set(refusals) == {refusal}
            assert {process.state for process in made} <= {ProcessState.TERMINATED}
            assert [process.os_pid for process in made if is_alive(process.os_pid or 0)] == []


def race(manager: ProcessManager, what: str, ahead: int) -> tuple[list[Process], list[object]]:
    """Spawn in three threads, and end it all when there are so many; who was made, and refused."""
    made: list[Process] = []
    parent = manager.create_process("parent")
    owner = parent if what == "parent" else None
    running = [in_thread(lambda: spawn_until_refused(manager, owner, made)) for _ in range(3)]
    while len(made) < ahead:
        os.sched_yield()
    if what == "parent":
        parent.terminate()
    else:
        manager.close()
    for thread, _ in running:
        thread.join(PATIENCE)
    return made, [outcome[0] for _, outcome in running]


def test_a_forked_child_owns_no_process_and_its_exit_kills_nobody(
    manager: ProcessManager,
) -> None:
    """It finds none, ends none, and closes its copy of the manager; it can spawn its own."""
    process = manager.spawn(SLEEP)

    def child() -> None:
        assert manager.list_processes() == []
        with pytest.raises(ProcessNotFoundError):
            manager.terminate_process(process.pid)
        assert process.terminate().stats.resources_freed == 0
        own = manager.spawn(SLEEP)
        assert is_alive(own.os_pid or 0)
        manager.close()
        assert not is_alive(own.os_pid or 0)
        assert children_of(os.getpid()) == []
        # One that watched is ending by then.
        eventually(lambda: threading.active_count() == 1, "its threads have ended")

    assert exit_code_of_fork(child) == 0
    assert process.state is ProcessState.RUNNING
    assert is_alive(process.os_pid or 0)
    process.send_signal(signal.SIGKILL)
    assert manager.wait(process.pid, PATIENCE).is_success


def test_forks_while_others_die_hold_up_nobody(manager: ProcessManager) -> None:
    """Whatever the host's threads are in the middle of: the child spawns, settles and closes."""
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            process = manager.spawn(SLEEP)
            process.send_signal(signal.SIGKILL)
            manager.wait(process.pid, PATIENCE)

    def child() -> None:
        signal.alarm(int(PATIENCE))
        own = manager.spawn(["sh", "-c", "exit 3"])
        manager.wait(own.pid, PATIENCE)
        assert own.returncode == 3
        manager.close()

    running = [in_thread(churn) for _ in range(3)]
    try:
        codes = [exit_code_of_fork(child) for _ in range(10)]
    finally:
        over.set()
        for thread, _ in running:
            thread.join(PATIENCE)

    assert codes == [0] * 10
    assert [outcome for _, outcome in running] == [[None]] * 3
