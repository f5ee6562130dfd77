"""What does not stop when asked: reported with its stack, and forgotten when it stops after all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from after_kind import AfterResource
from tasks_loops import LoopThread, eventually, until
from threads import wait_until_blocked

from probate import (
    CleanupResult,
    Outcome,
    ProcessManager,
    ResourceOrchestrator,
)
from probate.testing import KernelView
from probate_tasks import TaskResource, TaskStatus

if TYPE_CHECKING:
    from probate import CleanupFailure
    from probate_tasks import AsyncTaskManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def the_error(result: CleanupResult) -> CleanupFailure:
    assert len(result.errors) == 1, result.errors
    return result.errors[0]


async def swallow(release: asyncio.Event) -> None:
    while not release.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await inner(release)


async def inner(release: asyncio.Event) -> None:
    await release.wait()


def test_a_task_that_swallows_cancellation_is_busy_with_its_stack(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """The whole chain of awaits is told; when it ends after all, it is forgotten on its own."""

    async def main() -> None:
        release = asyncio.Event()
        process = manager.create_process("stubborn")
        task = tasks.spawn(process.pid, swallow(release), name="deaf")
        await asyncio.sleep(0)

        result = await manager.terminate_process_async(process.pid, grace=0.05)
        error = the_error(result)

        assert error.outcome is Outcome.BUSY
        assert error.resource == "task 'deaf' of swallow(), running"
        assert error.message.startswith("asked to cancel, it has not ended; it stands at\n")
        places = [line.split(" in ")[-1] for line in error.message.splitlines() if " in " in line]
        assert places == ["swallow", "inner", "wait"]
        assert __file__ in error.message
        assert "await release.wait()" in error.message
        assert result.stats.resources_freed == 0
        assert manager.orchestrator.has_resources(process.pid)

        release.set()
        await task

        assert not manager.orchestrator.has_resources(process.pid)

    asyncio.run(main())


def test_a_task_that_swallows_one_cancellation_is_asked_once(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """One termination cancels once: an exit under way is not cut short by a second time."""
    seen: list[int] = []

    async def work(release: asyncio.Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await release.wait()
        except asyncio.CancelledError:
            await release.wait()
            seen.append(task.cancelling())

    async def main() -> None:
        release = asyncio.Event()
        process = manager.create_process("stubborn")
        task = tasks.spawn(process.pid, work(release))
        await asyncio.sleep(0)
        result = await manager.terminate_process_async(process.pid, grace=0.05)

        assert the_error(result).outcome is Outcome.BUSY

        release.set()
        await task

    asyncio.run(main())

    assert seen == [1]


def test_a_task_that_blocks_its_loop_is_busy_with_the_blocking_line(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Where a coroutine blocks, its loop's thread tells in which call."""
    process = manager.create_process("blocking")
    go, started = threading.Event(), threading.Event()

    async def work() -> None:
        await block()

    async def block() -> None:
        started.set()
        go.wait(10)

    with LoopThread() as thread:
        thread.loop.call_soon_threadsafe(tasks.spawn, process.pid, work())
        assert started.wait(5)
        result = manager.terminate_process(process.pid, grace=0.05)
        go.set()
        eventually(lambda: not manager.orchestrator.has_resources(process.pid))

    message = the_error(result).message
    assert "in work" in message
    assert "in block" in message
    assert "go.wait(10)" in message


def test_executor_work_that_goes_on_is_busy_with_its_stack(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Executor work went on after 'cleanup': what still runs is reported, then forgotten."""
    before = KernelView.take().threads
    process = manager.create_process("worker")
    go, started = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait(10)

    future = tasks.submit(process.pid, work)
    assert started.wait(5)
    result = manager.terminate_process(process.pid, grace=0.05)
    error = the_error(result)

    assert error.outcome is Outcome.BUSY
    assert error.resource.endswith("work, running")
    assert "cannot be stopped from outside" in error.message
    assert "go.wait(10)" in error.message
    assert "_attempt" not in error.message
    assert manager.orchestrator.has_resources(process.pid)

    go.set()
    future.result(5)

    eventually(lambda: not manager.orchestrator.has_resources(process.pid))
    eventually(lambda: KernelView.take().threads <= before)


def test_a_call_of_a_c_function_is_busy_all_the_same(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """It has no Python frame of its own; the function is named."""
    ours, theirs = socket.socketpair()
    process = manager.create_process("worker")
    future = tasks.submit(process.pid, ours.recv, 1)
    eventually(lambda: tasks.status(process.pid, future) is TaskStatus.RUNNING)
    result = manager.terminate_process(process.pid, grace=0)
    theirs.send(b"x")

    assert "socket.recv, running" in the_error(result).resource
    assert future.result(5) == b"x"

    eventually(lambda: not manager.orchestrator.has_resources(process.pid))
    ours.close()
    theirs.close()


def test_what_the_release_of_another_kind_sets_free_is_counted() -> None:
    """Busy at first and free when asked again: freed, and no error, however the two meet."""
    resource = TaskResource()
    ends: AfterResource[socket.socket] = AfterResource("ends", socket.socket.close)
    orchestrator = ResourceOrchestrator().register(resource).register(ends)
    threads = set(threading.enumerate())
    for pid in range(1, 101):
        ours, theirs = socket.socketpair()
        ends.table.add(pid, theirs)
        future = resource.manager.submit(pid, ours.recv, 1)

        result = orchestrator.cleanup_process(pid, grace=0)

        assert result.errors == ()
        assert result.stats.by_type == {"tasks": 1, "ends": 1}
        assert future.done()
        assert not orchestrator.has_resources(pid)
        # Those of libraries that other tests have used may end meanwhile.
        assert set(threading.enumerate()) <= threads
        ours.close()


def test_the_synchronous_form_on_the_loops_own_thread_reports_and_goes_on(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """It cannot wait for the loop that it blocks: tasks are BUSY, and end when the loop goes on."""

    async def main() -> None:
        process = manager.create_process("worker")
        task = tasks.spawn(process.pid, asyncio.sleep(3600))
        await asyncio.sleep(0)
        started = time.monotonic()
        result = manager.terminate_process(process.pid, grace=30)

        assert time.monotonic() - started < 5
        assert the_error(result).outcome is Outcome.BUSY

        with pytest.raises(asyncio.CancelledError):
            await task

        assert not manager.orchestrator.has_resources(process.pid)

    asyncio.run(main())


@pytest.mark.parametrize("is_async", [True, False])
def test_a_task_that_terminates_its_own_process_gets_the_account(
    manager: ProcessManager, tasks: AsyncTaskManager, is_async: bool
) -> None:
    """It is not cancelled and not waited for, and the account says that it goes on."""

    async def main() -> None:
        process = manager.create_process("suicidal")

        async def work() -> CleanupResult:
            await asyncio.sleep(0)
            if is_async:
                return await manager.terminate_process_async(process.pid, grace=30)
            return manager.terminate_process(process.pid, grace=30)

        started = time.monotonic()
        task = tasks.spawn(process.pid, work())
        result = await task

        assert time.monotonic() - started < 5
        assert "terminates its own process" in the_error(result).message
        assert not manager.orchestrator.has_resources(process.pid)

    asyncio.run(main())


def test_a_call_that_terminates_its_own_process_gets_the_account(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """As for a task: it does not wait for itself, and what else was there is settled."""
    process = manager.create_process("suicidal")
    go = threading.Event()

    def work() -> CleanupResult:
        go.wait(10)
        return manager.terminate_process(process.pid, grace=30)

    future = tasks.submit(process.pid, work)
    go.set()
    result = future.result(10)

    assert "terminates its own process" in the_error(result).message
    assert result.stats.duration_seconds < 5
    eventually(lambda: not manager.orchestrator.has_resources(process.pid))


def test_a_child_of_the_task_may_terminate_its_process(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """The task waits for its child, and the child for the termination: bounded, and no deadlock."""

    async def main() -> None:
        process = manager.create_process("nested")

        async def child() -> None:
            await manager.terminate_process_async(process.pid, grace=30)

        async def parent() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())

        task = tasks.spawn(process.pid, parent())
        async with asyncio.timeout(10):
            await asyncio.wait([task])

        assert task.cancelled()
        assert process.state == "terminated"
        assert not manager.orchestrator.has_resources(process.pid)

    asyncio.run(main())


def test_a_task_may_have_a_thread_terminate_its_process(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """It is cancelled; the thread goes on with the account, and nobody waits for anybody else."""

    async def main() -> None:
        process = manager.create_process("delegating")
        task = tasks.spawn(process.pid, asyncio.to_thread(process.terminate, 30))
        async with asyncio.timeout(10):
            await asyncio.wait([task])
            result = await asyncio.to_thread(manager.wait, process.pid, 10)

        assert task.cancelled()
        assert "terminates its own process" in the_error(result).message
        assert result.stats.duration_seconds < 5
        await until(lambda: not manager.orchestrator.has_resources(process.pid))

    asyncio.run(main())


def test_a_second_termination_asks_again(manager: ProcessManager) -> None:
    """What was busy stays owned, and a later cleanup of the same pid cancels it once more."""
    resource = TaskResource()
    orchestrator = ResourceOrchestrator().register(resource)

    async def twice() -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    async def main() -> None:
        resource.manager.spawn(7, twice())
        await asyncio.sleep(0)
        first = await orchestrator.cleanup_process_async(7, grace=0.05)
        second = await orchestrator.cleanup_process_async(7, grace=5)

        assert the_error(first).outcome is Outcome.BUSY
        assert second.is_success
        assert second.stats.resources_freed == 1

    asyncio.run(main())


def test_nothing_blocks_when_a_manager_is_dropped() -> None:
    """Hang or deadlock in finalizers: dropping it all joins no thread and waits for no task."""
    resource = TaskResource()
    go = threading.Event()
    threads = threading.active_count()
    future = resource.manager.submit(7, go.wait, 10)
    eventually(future.running)
    started = time.monotonic()
    del resource

    assert time.monotonic() - started < 1
    assert future.running()

    go.set()
    assert future.result(5)
    eventually(lambda: threading.active_count() == threads)


def test_a_blocked_call_is_seen_by_the_kernel_until_it_returns(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """The account's word against the kernel's: busy while the thread sleeps in recv, then gone."""
    ours, theirs = socket.socketpair()
    process = manager.create_process("reader")
    threads: list[threading.Thread] = []

    def read() -> bytes:
        threads.append(threading.current_thread())
        return ours.recv(1)

    future = tasks.submit(process.pid, read)
    eventually(lambda: threads)
    wait_until_blocked(threads[0])
    result = manager.terminate_process(process.pid, grace=0)

    assert "ours.recv(1)" in the_error(result).message
    assert threads[0].native_id in KernelView.take().threads

    theirs.close()
    assert future.result(5) == b""
    eventually(lambda: threads[0].native_id not in KernelView.take().threads)
    assert not manager.orchestrator.has_resources(process.pid)
    ours.close()
