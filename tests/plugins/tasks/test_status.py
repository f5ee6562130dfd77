"""How far things have come, and cancelling them by hand."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

import pytest
from tasks_loops import LoopThread, eventually

from probate import BusyResourceError, NotOwnedError, ProcessManager, ResourceId
from probate_tasks import AsyncTaskManager, TaskResource, TaskStatus

pytestmark = pytest.mark.usefixtures("nothing_remains")


async def fail() -> None:
    raise LookupError("boom")


def test_the_status_of_a_task_from_first_to_last(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Pending until its first step, running until it ends, then how it ended."""

    async def main() -> None:
        process = manager.create_process("worker")
        pid = process.pid
        go = asyncio.Event()
        good, bad, ended = (
            tasks.spawn(pid, go.wait()),
            tasks.spawn(pid, fail()),
            tasks.spawn(pid, go.wait()),
        )

        assert tasks.status(pid, good) is TaskStatus.PENDING

        await asyncio.sleep(0)

        assert tasks.status(pid, good) is TaskStatus.RUNNING
        assert tasks.cancel(pid, ended)

        go.set()
        await asyncio.wait([good, bad, ended])

        assert [tasks.status(pid, task) for task in (good, bad, ended)] == [
            "done",
            "failed",
            "cancelled",
        ]
        assert tasks.status(pid) == {}

    asyncio.run(main())


def test_the_status_of_a_call_from_first_to_last() -> None:
    """Pending while it is queued, running on its thread, then how it ended."""
    tasks = TaskResource(AsyncTaskManager(max_threads=1)).manager
    go, started = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait(10)

    running, bad, ended = [
        tasks.submit(1, function) for function in (work, lambda: int("x"), lambda: None)
    ]
    assert started.wait(5)

    assert tasks.status(1) == {
        ended: TaskStatus.PENDING,
        bad: TaskStatus.PENDING,
        running: TaskStatus.RUNNING,
    }
    assert tasks.cancel(1, ended)
    assert list(tasks.status(1)) == [bad, running]

    go.set()
    concurrent.futures.wait([running, bad], 5)

    assert [tasks.status(1, future) for future in (running, bad, ended)] == [
        "done",
        "failed",
        "cancelled",
    ]


def test_a_running_call_cannot_be_cancelled(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Cancel says so, and the call goes on; so for one that is over."""
    process = manager.create_process("worker")
    go = threading.Event()
    future = tasks.submit(process.pid, go.wait, 10)
    eventually(future.running)

    assert not tasks.cancel(process.pid, future)

    go.set()

    assert future.result(5)
    assert not tasks.cancel(process.pid, future)


def test_closing_lets_go_of_what_does_not_run() -> None:
    """A call that no thread has taken up is cancelled, and nobody's; closing again does nothing."""
    tasks = TaskResource(AsyncTaskManager(max_threads=1)).manager
    go = threading.Event()
    running, queued = tasks.submit(1, go.wait, 10), tasks.submit(1, int)
    for _ in range(2):
        tasks.close(1, queued)

    assert queued.cancelled()
    assert list(tasks.status(1)) == [running]

    go.set()
    assert running.result(5)


def test_closing_what_runs_on_says_where_it_stands_and_it_stays_owned(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """It was asked to stop, and is forgotten when it does."""

    async def main() -> None:
        process = manager.create_process("worker")
        task = tasks.spawn(process.pid, asyncio.sleep(3600))
        await asyncio.sleep(0)
        with pytest.raises(BusyResourceError, match="in sleep"):
            tasks.close(process.pid, task)

        assert manager.orchestrator.has_resources(process.pid)

        await asyncio.wait([task])

        assert task.cancelled()
        assert not manager.orchestrator.has_resources(process.pid)

    asyncio.run(main())


def test_a_task_is_cancelled_from_a_foreign_thread(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """The request goes through the task's own loop, which alone may touch it."""
    process = manager.create_process("worker")
    where: list[int] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            where.append(threading.get_ident())

    with LoopThread() as thread:
        # In debug mode a loop refuses to be touched by a foreign thread.
        thread.loop.set_debug(True)
        task = thread.call(tasks.spawn, process.pid, work())

        assert tasks.cancel(process.pid, task)
        eventually(lambda: not manager.orchestrator.has_resources(process.pid))
        assert not tasks.cancel(process.pid, task)

    assert task.cancelled()
    assert where == [thread.ident]


def test_what_is_anothers_is_neither_told_nor_cancelled(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Release is owner-checked: the error names the owner, and the task goes on."""

    async def main() -> None:
        a, b = manager.create_process("a"), manager.create_process("b")
        task = tasks.spawn(a.pid, asyncio.sleep(3600))
        for method in (tasks.cancel, tasks.close, tasks.status):
            with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
                method(b.pid, task)
        await manager.terminate_process_async(b.pid)

        assert task.cancelling() == 0

        stranger = asyncio.ensure_future(asyncio.sleep(3600))
        for method in (tasks.cancel, tasks.close, tasks.status):
            with pytest.raises(NotOwnedError, match="nobody here does"):
                method(a.pid, stranger)
        stranger.cancel()

    asyncio.run(main())


def test_an_id_serves_as_well_as_the_object(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """The id that `adopt` gives and `usage` shows."""

    async def main() -> None:
        process = manager.create_process("worker")
        task = asyncio.ensure_future(asyncio.sleep(3600))
        resource_id = process.adopt(task)

        assert tasks.status(process.pid, resource_id) is TaskStatus.PENDING
        assert tasks.cancel(process.pid, resource_id)

        await asyncio.wait([task])

        with pytest.raises(NotOwnedError):
            tasks.cancel(process.pid, resource_id)
        with pytest.raises(NotOwnedError):
            tasks.status(process.pid, ResourceId(10**9))

    asyncio.run(main())


def test_a_process_stands_for_its_pid(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """Everywhere, and the current process where none is given."""

    async def main() -> None:
        async with manager.process("job") as process:
            task = tasks.spawn(process, asyncio.sleep(3600))

            assert tasks.status(process) == tasks.status() == {task: TaskStatus.PENDING}
            assert tasks.status(process, task) is tasks.status(task) is TaskStatus.PENDING
            assert tasks.cancel(task)

    asyncio.run(main())
