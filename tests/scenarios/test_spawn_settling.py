"""A spawned OS process that dies is settled without anybody calling, once, with all it held."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from plugins_things import ThingResource
from processes_kernel import eventually
from spawn_house import CONTAINMENTS, PATIENCE, house, is_alive
from threads import in_thread

from probate import (
    Process,
    ProcessManager,
    ProcessState,
    ResourceOrchestrator,
    TerminationDeadlockError,
    hookimpl,
)
from probate_processes.procfs import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import CleanupStats
    from probate_sockets import SocketManager

LOOPBACK = ("127.0.0.1", 0)

#: Ways to end, with the return code of each: as subprocess puts it.
ENDS = {
    "true": (["true"], 0),
    "exit 3": (["sh", "-c", "exit 3"], 3),
    "crash": (["sh", "-c", "kill -SEGV $$"], -signal.SIGSEGV),
    "killed by itself": (["sh", "-c", "kill -KILL $$"], -signal.SIGKILL),
    "exception": ([sys.executable, "-S", "-E", "-c", "raise ValueError"], 1),
}


@pytest.fixture(params=CONTAINMENTS)
def manager(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProcessManager]:
    with house(monkeypatch, request.param) as manager:
        yield manager


@pytest.fixture
def things(manager: ProcessManager) -> ThingResource:
    """A kind whose resources count how often they are released."""
    plugin = ThingResource(priority=-1)
    manager.orchestrator.register(plugin)
    return plugin


def sockets_of(manager: ProcessManager) -> SocketManager:
    found: SocketManager = manager.orchestrator["sockets"].manager
    return found


@pytest.mark.parametrize("end", ENDS)
def test_however_it_ends_it_is_settled_unasked_and_once(
    manager: ProcessManager, things: ThingResource, end: str
) -> None:
    """Exit, crash, signal, exception: what it held is released, and how it ended is kept."""
    argv, code = ENDS[end]
    process = manager.spawn(["sh", "-c", 'read go; exec "$@"', "sh", *argv], stdin=-1, stderr=-3)
    thing = things.give(process.pid)
    stdin = process.stdin
    assert stdin is not None
    stdin.write(b"\n")
    stdin.flush()

    result = manager.wait(process.pid, PATIENCE)

    assert thing.releases == 1
    assert result.is_success
    assert result.stats.by_type == {"things": 1}
    assert process.returncode == code
    assert process.info().returncode == code
    assert process.info().state is ProcessState.TERMINATED
    assert process.result is result
    assert process.terminate() is result
    assert manager.list_processes() == []


def test_a_kill_from_outside_is_settled_unasked(manager: ProcessManager) -> None:
    """SIGKILL by whoever: no process, no zombie, its code is -9."""
    process = manager.spawn(["sleep", "1000"])
    assert process.os_pid is not None
    os.kill(process.os_pid, signal.SIGKILL)
    result = manager.wait(process.pid, PATIENCE)

    assert result.is_success
    assert process.returncode == -signal.SIGKILL
    assert not is_alive(process.os_pid)
    assert process.os_pid not in children_of(os.getpid())


@pytest.mark.parametrize(("code", "leaks"), [(0, ["things"]), (3, []), (-9, [])])
def test_only_a_normal_end_has_leaks(
    manager: ProcessManager, things: ThingResource, code: int, leaks: list[str]
) -> None:
    """What it still held after exit 0 it has leaked; after a crash or a kill it is expected."""
    script = f"exit {code}" if code >= 0 else "kill -KILL $$"
    process = manager.spawn(["sh", "-c", f"read go; {script}"], stdin=-1)
    things.give(process.pid)
    assert process.stdin is not None
    process.stdin.close()

    result = manager.wait(process.pid, PATIENCE)

    assert [leak.kind for leak in result.leaks] == leaks
    assert result.stats.by_type == {"things": 1}


def test_what_the_host_holds_for_a_worker_goes_with_it_in_cleanup_order(
    manager: ProcessManager,
) -> None:
    """A map, a signal handler, a listener: all freed when the worker is killed, in that order."""
    orchestrator = manager.orchestrator
    order: list[str] = []

    class Observer:
        @hookimpl(wrapper=True)
        def cleanup(self, pid: int) -> Any:
            stats: list[CleanupStats] = yield
            order.extend(kind for each in stats for kind in each.by_type)
            return stats

    orchestrator.register(Observer(), "observer")
    before = signal.getsignal(signal.SIGUSR2)
    process = manager.spawn(["sleep", "1000"])
    listener = sockets_of(manager).listen_tcp(process.pid, LOOPBACK)
    address = listener.getsockname()
    mapping = orchestrator["mmap"].manager.map_anonymous(process.pid, 8192)
    orchestrator["signals"].manager.register(process.pid, signal.SIGUSR2, lambda *_: None)
    assert process.os_pid is not None
    os.kill(process.os_pid, signal.SIGKILL)

    result = manager.wait(process.pid, PATIENCE)

    assert result.is_success
    assert order == ["mmap", "signals", "sockets"]
    assert (listener.fileno(), mapping.closed) == (-1, True)
    assert signal.getsignal(signal.SIGUSR2) is before
    with socket.create_server(address):
        pass


def test_a_dead_parent_takes_its_children_with_it_newest_first(manager: ProcessManager) -> None:
    """Spawned under a spawned process that is killed: all of them die, the latest first."""
    settled: list[str] = []
    parent = manager.spawn(["sleep", "1000"], "parent")
    tree = [parent]
    names = ("first", "second", "third")
    tree += [manager.spawn(["sleep", "1000"], name, parent) for name in names]
    tree.insert(2, manager.spawn(["sleep", "1000"], "grandchild", tree[1]))
    all_told = threading.Event()
    for process in tree:
        process.on_terminated(lambda name=process.name: settled.append(name))  # type: ignore[misc]  # bound here
    parent.on_terminated(all_told.set)
    assert parent.os_pid is not None
    os.kill(parent.os_pid, signal.SIGKILL)

    manager.wait(parent.pid, PATIENCE)

    assert all_told.wait(PATIENCE)
    assert [is_alive(process.os_pid or 0) for process in tree] == [False] * 5
    assert settled == ["third", "second", "grandchild", "first", "parent"]
    assert parent.returncode == -signal.SIGKILL
    assert {each.returncode for each in tree[1:]} == {-signal.SIGTERM}


def test_a_dead_child_leaves_its_parent_alone(manager: ProcessManager) -> None:
    """Death goes down the tree, not up."""
    parent = manager.spawn(["sleep", "1000"])
    child = manager.spawn(["sh", "-c", "exit 3"], parent=parent)
    manager.wait(child.pid, PATIENCE)

    assert child.returncode == 3
    assert parent.state is ProcessState.RUNNING
    assert is_alive(parent.os_pid or 0)


def test_waiting_in_all_its_forms_gives_the_one_account(manager: ProcessManager) -> None:
    """From several threads, from a loop, with time limits that pass, and long afterwards."""
    process = manager.spawn(["sh", "-c", "read go"], stdin=-1)
    with pytest.raises(TimeoutError):
        manager.wait(process.pid, 0.01)
    with pytest.raises(TimeoutError):
        manager.wait(process.pid, 0)
    threads = [in_thread(lambda: manager.wait(process.pid, PATIENCE)) for _ in range(8)]

    async def wait() -> list[object]:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await manager.wait_async(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            return list(await asyncio.gather(*(manager.wait_async(process.pid) for _ in range(8))))

    results = asyncio.run(wait())
    for thread, outcome in threads:
        thread.join(PATIENCE)
        results += outcome
    for _ in range(50):
        manager.spawn(["true"])

    assert [each is process.result for each in results] == [True] * 16
    assert manager.wait(process.pid) is process.result
    assert process.returncode == 1


def test_a_wait_that_was_given_up_on_is_forgotten(
    manager: ProcessManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Its loop is closed by the time of the death, which is nobody's error."""
    process = manager.spawn(["sleep", "1000"])

    async def give_up() -> None:
        async with asyncio.timeout(0.01):
            await manager.wait_async(process.pid)

    for _ in range(3):
        with pytest.raises(TimeoutError):
            asyncio.run(give_up())
    process.send_signal(signal.SIGKILL)
    manager.wait(process.pid, PATIENCE)
    manager.close()

    assert [record.getMessage() for record in caplog.records] == []


def test_a_hook_that_closes_the_manager_does_not_wait_for_itself(
    manager: ProcessManager, things: ThingResource
) -> None:
    """It is being called by what the closing waits for; the others are settled all the same."""
    outcomes: list[object] = []

    def meddle() -> None:
        try:
            manager.close()
            outcomes.append("closed")
            manager.wait(process.pid, PATIENCE)
        except TerminationDeadlockError as error:
            outcomes.append(type(error))

    other = manager.spawn(["sleep", "1000"])
    process = manager.spawn(["sleep", "1000"])
    things.give(process.pid, behave=meddle)
    process.send_signal(signal.SIGKILL)

    assert process._result.result(PATIENCE).is_success
    assert outcomes == ["closed", TerminationDeadlockError]
    assert other.state is ProcessState.TERMINATED


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_a_hook_that_raises_while_settling_ends_the_settling_of_no_other(
    manager: ProcessManager, things: ThingResource, error: type[BaseException]
) -> None:
    """It is in the account of the one that it concerns; whoever dies later is settled as well."""

    def fail() -> None:
        raise error("no luck")

    first, second = (manager.spawn(["sleep", "1000"]) for _ in range(2))
    things.give(first.pid, behave=fail)
    for process in (first, second):
        process.send_signal(signal.SIGKILL)
    results = [manager.wait(process.pid, PATIENCE) for process in (first, second)]
    later = manager.spawn(["true"])

    assert [result.is_success for result in results] == [False, True]
    assert "no luck" in str(results[0].errors[0])
    assert manager.wait(later.pid, PATIENCE).is_success


def test_an_exited_callback_that_raises_does_not_keep_it_from_being_settled(
    manager: ProcessManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even a SystemExit: the others are told of their deaths too."""
    processes: list[Process] = [manager.spawn(["sleep", "1000"]) for _ in range(3)]

    def leave(_: object) -> None:
        sys.exit("no luck")

    child: Any = processes[0]._child
    child.exited.add_done_callback(leave)
    for process in processes:
        process.send_signal(signal.SIGKILL)

    assert [manager.wait(each.pid, PATIENCE).is_success for each in processes] == [True] * 3
    # The callback comes after the one that has it settled, on another thread.
    eventually(lambda: caplog.records, "its exit is logged")
    assert caplog.records


def test_a_manager_is_left_while_workers_are_dying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed from outside at the moment of the closing: 15 rounds, each settled once."""
    for _ in range(15):
        things = ThingResource(priority=-1)
        orchestrator = ResourceOrchestrator().discover().register(things)
        with house(monkeypatch, orchestrator=orchestrator) as manager:
            processes = [manager.spawn(["sleep", "1000"]) for _ in range(4)]
            held = [things.give(process.pid) for process in processes]
            killer = threading.Thread(
                target=lambda alive=processes: [p.send_signal(signal.SIGKILL) for p in alive]
            )
            killer.start()
        killer.join(PATIENCE)

        assert [thing.releases for thing in held] == [1] * 4
