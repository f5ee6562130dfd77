"""What runs calls of others: executors, pools, managers of multiprocessing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import multiprocessing
import multiprocessing.managers
import multiprocessing.pool
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tasks_loops import eventually

from probate import Outcome, ProcessManager, UnadoptableError
from probate_tasks import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate_tasks import AsyncTaskManager

spawning = multiprocessing.get_context("spawn")


class Gate:
    """A function that blocks its thread until it is let through."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        self.entered.set()
        self.opened.wait(10)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def sleep_deaf(seconds: float) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(seconds)


def children() -> set[psutil.Process]:
    return set(psutil.Process().children())


@pytest.fixture
def no_child_remains() -> Iterator[None]:
    """But the resource tracker, which a first spawn starts for good."""
    spawning.Lock()
    before = children()
    yield
    eventually(lambda: not any(each.is_running() for each in children() - before))
    # Pools are full of circles, with pipes in them.
    gc.collect()


@pytest.mark.usefixtures("nothing_remains")
@pytest.mark.parametrize("is_used", [True, False])
def test_an_executors_threads_are_gone_with_its_owner(
    manager: ProcessManager, tasks: AsyncTaskManager, is_used: bool
) -> None:
    """An idle executor is shut down, takes nothing more, and counts."""
    process = manager.create_process("pooled")
    executor = ThreadPoolExecutor(2)
    if is_used:
        executor.submit(int).result(5)
    process.adopt(executor)
    assert tasks.status(process.pid) == {executor: TaskStatus.RUNNING}
    result = process.terminate(grace=5)

    assert result.is_success
    assert result.stats.resources_freed == 1
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)


@pytest.mark.usefixtures("nothing_remains")
def test_what_an_executor_runs_is_waited_for_and_what_is_queued_is_not(
    manager: ProcessManager, gate: Gate
) -> None:
    """The running call ends within the grace, the queued ones are cancelled."""
    process = manager.create_process("pooled")
    executor = ThreadPoolExecutor(1)
    running, queued = executor.submit(gate.pass_through), executor.submit(int)
    process.adopt(executor)
    assert gate.entered.wait(5)
    threading.Timer(0.05, gate.opened.set).start()
    result = process.terminate(grace=5)

    assert result.is_success
    assert running.done()
    assert queued.cancelled()


@pytest.mark.usefixtures("nothing_remains")
@pytest.mark.parametrize(
    "make", [ThreadPoolExecutor, multiprocessing.pool.ThreadPool], ids=["executor", "pool"]
)
def test_a_pools_thread_that_works_on_is_busy_with_its_stack(
    manager: ProcessManager, gate: Gate, make: Any
) -> None:
    """A thread cannot be stopped: BUSY, and forgotten when it has ended after all."""
    process = manager.create_process("pooled")
    pool = make(2)
    submit = pool.submit if make is ThreadPoolExecutor else pool.apply_async
    submit(gate.pass_through)
    process.adopt(pool)
    assert gate.entered.wait(5)
    result = process.terminate(grace=0.05)

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "1 calls: it still runs" in result.errors[0].message
    assert "opened.wait(10)" in result.errors[0].message

    gate.opened.set()
    eventually(lambda: not manager.orchestrator.has_resources(process.pid))


@pytest.mark.usefixtures("nothing_remains")
def test_tasks_end_before_the_executor_that_they_use(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """A task's exit may still use the pool: it is shut down when the tasks are over."""
    log: list[str] = []

    async def main() -> None:
        process = manager.create_process("pooled")
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1)

        async def work() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                await loop.run_in_executor(executor, log.append, "left")

        tasks.spawn(process.pid, work())
        process.adopt(executor)
        await asyncio.sleep(0)
        result = await process.terminate_async(grace=5)

        assert result.is_success
        assert result.stats.resources_freed == 2

    asyncio.run(main())

    assert log == ["left"]


@pytest.mark.usefixtures("nothing_remains")
def test_a_pools_call_that_terminates_the_pools_owner_gets_the_account(
    manager: ProcessManager,
) -> None:
    """It is not waited for, the pool takes nothing more, and is forgotten when it has ended."""
    process = manager.create_process("suicidal")
    executor = ThreadPoolExecutor(1)
    process.adopt(executor)
    result = executor.submit(process.terminate, 30).result(10)

    assert "terminates its own process" in result.errors[0].message
    with pytest.raises(RuntimeError):
        executor.submit(int)
    eventually(lambda: not manager.orchestrator.has_resources(process.pid))


@pytest.mark.usefixtures("no_child_remains")
@pytest.mark.parametrize("is_busy", [False, True])
@pytest.mark.parametrize("is_shut_down", [False, True])
def test_a_process_pools_workers_are_gone_with_its_owner(
    manager: ProcessManager, is_busy: bool, is_shut_down: bool
) -> None:
    """What has not ended within the grace is killed, also where the pool was told to forget it."""
    process = manager.create_process("pooled")
    before = children()
    executor = ProcessPoolExecutor(1, mp_context=spawning)
    executor.submit(int).result(20)
    workers = children() - before
    future = executor.submit(sleep_deaf, 60 if is_busy else 0)
    if is_busy:
        eventually(future.running)
    process.adopt(executor)
    if is_shut_down:
        executor.shutdown(wait=False)
    result = process.terminate(grace=0.3 if is_busy else 20)

    assert workers
    assert [str(error) for error in result.errors] == []
    assert result.stats.resources_freed == 1
    assert not any(worker.is_running() for worker in workers)
    if is_busy:
        assert isinstance(future.exception(5), concurrent.futures.process.BrokenProcessPool)


@pytest.mark.usefixtures("no_child_remains")
@pytest.mark.parametrize("is_busy", [False, True])
def test_a_pools_workers_are_gone_with_its_owner(manager: ProcessManager, is_busy: bool) -> None:
    """Closed, waited for, terminated, killed: whatever it takes, also for workers that are deaf."""
    process = manager.create_process("pooled")
    pool = spawning.Pool(1)
    pool.apply(int)
    workers = [psutil.Process(each.pid) for each in pool._pool]  # type: ignore[attr-defined]
    result_of = pool.apply_async(sleep_deaf, (60 if is_busy else 0,))
    process.adopt(pool)
    if is_busy:
        # Deaf only from when it runs.
        eventually(lambda: _ignores(workers[0].pid, signal.SIGTERM))
    result = process.terminate(grace=0.3 if is_busy else 20)

    assert [str(error) for error in result.errors] == []
    assert result.stats.resources_freed == 1
    assert not any(worker.is_running() for worker in workers)
    assert result_of.ready() is not is_busy


@pytest.mark.usefixtures("no_child_remains")
def test_a_managers_process_is_gone_with_its_owner(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Not before the rest has ended: a task may use its objects in its exit."""
    log: list[int] = []

    async def main() -> None:
        process = manager.create_process("serving")
        server = multiprocessing.managers.SyncManager(ctx=spawning)
        server.start()
        numbers = server.list([1, 2])

        async def work() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                log.extend(numbers)

        tasks.spawn(process.pid, work())
        process.adopt(server)
        await asyncio.sleep(0)
        its_process = psutil.Process(server._process.pid)  # type: ignore[attr-defined]
        result = await process.terminate_async(grace=5)

        assert [str(error) for error in result.errors] == []
        assert result.stats.resources_freed == 2
        assert not its_process.is_running()

    asyncio.run(main())

    assert log == [1, 2]


@pytest.mark.usefixtures("no_child_remains")
def test_a_manager_that_was_shut_down_by_its_user_is_no_leak(manager: ProcessManager) -> None:
    """It tells nobody; whoever asks finds it gone. One that was never started is refused."""
    with manager.process("serving") as process:
        server = multiprocessing.managers.SyncManager(ctx=spawning)
        with pytest.raises(UnadoptableError):
            process.adopt(server)
        server.start()
        process.adopt(server)
        server.shutdown()

        assert manager.orchestrator.usage(process.pid)["tasks"].count == 0
    assert manager.wait(process.pid, 5).leaks == ()


def test_a_client_of_a_cluster_is_no_executor(manager: ProcessManager) -> None:
    """Its shutdown would end what others use: whoever wants that says release=."""

    class Client:
        def submit(self, function: object) -> None: ...
        def map(self, function: object) -> None: ...
        def shutdown(self) -> None: ...

    with pytest.raises(UnadoptableError, match="release="):
        manager.create_process("cautious").adopt(Client())


def _ignores(pid: int, signum: int) -> bool:
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("SigIgn:"):
                return bool(int(line.split()[1], 16) >> (signum - 1) & 1)
    return False
