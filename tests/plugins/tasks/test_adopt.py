"""Tasks and futures made elsewhere, given to a process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import anyio
import anyio.from_thread
import pytest
from tasks_loops import LoopThread, eventually

from probate import AlreadyOwnedError, Outcome, ProcessManager, UnadoptableError
from probate_tasks import TaskStatus

if TYPE_CHECKING:
    from probate_tasks import AsyncTaskManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_an_adopted_task_is_as_one_of_ours(manager: ProcessManager) -> None:
    """Cancelled with its owner and counted, or forgotten when it ends by itself."""

    async def main() -> None:
        process = manager.create_process("worker")
        task = asyncio.ensure_future(asyncio.sleep(3600))
        short = asyncio.ensure_future(asyncio.sleep(0))
        process.adopt(task)
        process.adopt(short)
        await short
        await asyncio.sleep(0)

        assert manager.orchestrator.usage(process.pid)["tasks"].count == 1

        result = await process.terminate_async(grace=5)

        assert result.is_success
        assert result.stats.by_type == {"tasks": 1}
        assert task.cancelled()

    asyncio.run(main())


def test_a_task_is_adopted_from_a_foreign_thread(manager: ProcessManager) -> None:
    """Its loop, and nobody else, is made to watch and to cancel it."""
    process = manager.create_process("worker")
    with LoopThread() as thread:
        thread.loop.set_debug(True)
        go = thread.call(asyncio.Event)
        first = thread.call(asyncio.ensure_future, go.wait())
        second = thread.call(asyncio.ensure_future, asyncio.sleep(3600))
        process.adopt(first)
        process.adopt(second)
        thread.call(go.set)
        eventually(lambda: manager.orchestrator.usage(process.pid)["tasks"].count == 1)
        result = process.terminate(grace=5)

    assert result.is_success
    assert result.stats.resources_freed == 1
    assert second.cancelled()


def test_each_task_has_one_owner(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """Neither a second process nor the first one again may adopt it."""

    async def main() -> None:
        a, b = manager.create_process("a"), manager.create_process("b")
        task = tasks.spawn(a.pid, asyncio.sleep(3600))
        for process in (a, b):
            with pytest.raises(AlreadyOwnedError, match=f"process {a.pid}"):
                process.adopt(task)
        result = await manager.terminate_process_async(a.pid, grace=5)

        assert result.stats.resources_freed == 1

    asyncio.run(main())


def test_what_is_done_cannot_be_adopted(manager: ProcessManager) -> None:
    """There is nothing left to own; the reason is given."""

    async def main() -> None:
        process = manager.create_process("late")
        task = asyncio.ensure_future(asyncio.sleep(0))
        await task
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        future.set_result(None)
        for done in (task, future):
            with pytest.raises(UnadoptableError) as refusal:
                process.adopt(done)

            assert "done, so it cannot be adopted" in str(
                refusal.value.__cause__.exceptions[0]  # type: ignore[union-attr]  # a group
            )
        assert not manager.orchestrator.has_resources(process.pid)

    asyncio.run(main())


def test_an_executors_futures_are_cancelled_while_queued_and_waited_for_while_running(
    manager: ProcessManager,
) -> None:
    """Of a thread pool's futures, the queued are cancelled, the running end within the grace."""
    process = manager.create_process("worker")
    go, started = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait(10)

    with ThreadPoolExecutor(1) as executor:
        futures = [executor.submit(work) for _ in range(3)]
        assert started.wait(5)
        for future in futures:
            process.adopt(future)
        threading.Timer(0.05, go.set).start()
        result = process.terminate(grace=5)

        assert result.is_success
        assert result.stats.resources_freed == 3
        assert [future.cancelled() for future in futures] == [False, True, True]


def test_executor_work_behind_an_asyncio_future_is_not_lost_sight_of(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """An asyncio future can be cancelled while its function goes on: BUSY, with its stack."""

    async def main() -> None:
        process = manager.create_process("worker")
        loop = asyncio.get_running_loop()
        go, started = threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            go.wait(10)

        future = loop.run_in_executor(None, work)
        process.adopt(future)
        assert started.wait(5)
        future.cancel()
        await asyncio.wait([future])

        assert tasks.status(process.pid, future) is TaskStatus.RUNNING

        result = await process.terminate_async(grace=0.05)

        assert [error.outcome for error in result.errors] == [Outcome.BUSY]
        assert "go.wait(10)" in result.errors[0].message
        assert manager.orchestrator.has_resources(process.pid)

        go.set()
        await loop.shutdown_default_executor()

        assert not manager.orchestrator.has_resources(process.pid)

    asyncio.run(main())


@pytest.mark.parametrize("is_early", [True, False])
def test_a_task_behind_a_future_for_threads_is_not_lost_sight_of(
    manager: ProcessManager, is_early: bool
) -> None:
    """run_coroutine_threadsafe's future can be cancelled while the task goes on: it is waited for.

    So also if it was adopted before its loop came to make the task.
    """
    process = manager.create_process("worker")
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            log.append("left")

    async def step() -> None:
        await asyncio.sleep(0)

    with LoopThread() as thread:
        blocked = threading.Event()
        if is_early:
            thread.loop.call_soon_threadsafe(blocked.wait, 10)
        future = asyncio.run_coroutine_threadsafe(work(), thread.loop)
        if not is_early:
            thread.run(step())
        process.adopt(future)
        blocked.set()
        thread.run(step())
        result = process.terminate(grace=5)

        assert result.is_success
        assert result.stats.resources_freed == 1
        assert log == ["left"]


def test_a_future_that_is_no_task_is_cancelled(manager: ProcessManager) -> None:
    """Whoever awaits a promise of the dead learns of it, and so do the members of a gather."""

    async def main() -> None:
        process = manager.create_process("promising")
        promise = asyncio.get_running_loop().create_future()
        member = asyncio.ensure_future(asyncio.sleep(3600))
        process.adopt(promise)
        process.adopt(asyncio.gather(member))
        result = await process.terminate_async(grace=5)

        assert result.is_success
        assert result.stats.resources_freed == 2
        assert promise.cancelled()
        assert member.cancelled()

    asyncio.run(main())


def test_a_call_in_a_pool_that_terminates_its_own_process_gets_the_account(
    manager: ProcessManager,
) -> None:
    """A pool's thread that terminates the owner of its own future does not wait for itself."""
    process = manager.create_process("suicidal")
    go = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(lambda: go.wait(10) and process.terminate(grace=30))
        process.adopt(future)
        go.set()
        result = future.result(10)

    assert result
    assert "terminates its own process" in result.errors[0].message
    assert not manager.orchestrator.has_resources(process.pid)


def test_a_future_that_was_settled_natively_is_not_counted(manager: ProcessManager) -> None:
    """Whoever made a future may settle it: it is forgotten at once, and nothing was freed."""
    process = manager.create_process("direct")
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    process.adopt(future)
    future.set_result(None)

    assert not manager.orchestrator.has_resources(process.pid)

    result = process.terminate()

    assert result.is_success
    assert result.stats.resources_freed == 0


def test_a_task_whose_ownership_moved_is_forgotten_by_its_new_owner(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """A transfer by the table, under the same id, changes who ends it and nothing else."""

    async def main() -> None:
        a, b = manager.create_process("a"), manager.create_process("b")
        go = asyncio.Event()
        ended, killed = asyncio.ensure_future(go.wait()), asyncio.ensure_future(go.wait())
        for task in (ended, killed):
            tasks.table.transfer(a.pid, a.adopt(task), b.pid)

        assert (await a.terminate_async(grace=5)).stats.resources_freed == 0

        tasks.cancel(b.pid, ended)
        with contextlib.suppress(asyncio.CancelledError):
            await ended

        assert list(tasks.status(b.pid)) == [killed]
        assert (await b.terminate_async(grace=5)).stats.resources_freed == 1

    asyncio.run(main())


class Scope:
    """As a cancel scope or a nursery of trio's, which no loop of asyncio's runs."""

    cancel_called = False

    def cancel(self) -> None: ...


def test_what_only_its_own_scope_can_end_says_release(manager: ProcessManager) -> None:
    """Scopes, groups, handles and portals of anyio and trio: refused, with the way out."""
    process = manager.create_process("scoped")

    async def main(portal: anyio.from_thread.BlockingPortal) -> None:
        async with anyio.create_task_group() as group:
            handle: Any = group.start_soon(anyio.sleep, 3600)
            for each in (group, group.cancel_scope, portal, Scope(), handle):
                with pytest.raises(UnadoptableError, match="release=") as refusal:
                    process.adopt(each)

                cause = refusal.value.__cause__
                assert isinstance(cause, ExceptionGroup)
                assert "release=stop" in str(cause.exceptions[0])
            group.cancel_scope.cancel()

    with anyio.from_thread.start_blocking_portal() as portal:
        asyncio.run(main(portal))
    assert not manager.orchestrator.has_resources(process.pid)


def test_what_runs_nothing_is_not_of_this_kind(manager: ProcessManager) -> None:
    """Threads, which nobody can ask to stop; coroutines that no task runs; locks, and classes."""
    process = manager.create_process("choosy")
    coroutine = asyncio.sleep(0)
    things = [
        threading.Thread(target=int),
        threading.Event(),
        coroutine,
        asyncio.Event(),
        asyncio.Queue(),
        ThreadPoolExecutor,
        asyncio.Task,
        int,
        42,
        Mock(),
    ]
    for thing in things:
        with pytest.raises(UnadoptableError, match="release="):
            process.adopt(thing)
    coroutine.close()
