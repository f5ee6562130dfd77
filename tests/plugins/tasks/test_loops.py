"""Several event loops in several threads; loops that are stopped, and loops that are closed."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from tasks_loops import LoopThread, eventually

from probate import Outcome, ProcessManager

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from probate_tasks import AsyncTaskManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture
def loop_complaints() -> Iterator[list[str]]:
    """What asyncio complains of, such as 'Task was destroyed but it is pending'."""
    complaints: list[str] = []
    yield complaints
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()

    assert complaints == []


def spawn_on(
    loop: asyncio.AbstractEventLoop,
    tasks: AsyncTaskManager,
    pid: int,
    coroutine: Coroutine[Any, Any, None],
) -> asyncio.Task[None]:
    """Spawn on a loop that runs for just as long as the task's first step takes."""

    async def start() -> asyncio.Task[None]:
        task: asyncio.Task[None] = tasks.spawn(pid, coroutine)
        await asyncio.sleep(0)
        return task

    return loop.run_until_complete(start())


@pytest.fixture
def quiet_loop(loop_complaints: list[str]) -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: loop_complaints.append(context["message"]))
    yield loop
    loop.close()


@pytest.mark.parametrize("is_async", [True, False])
def test_tasks_on_three_loops_in_three_threads_end_together(
    manager: ProcessManager, tasks: AsyncTaskManager, is_async: bool
) -> None:
    """Each is cancelled by its own loop, and ends on its own thread; all are counted."""
    process = manager.create_process("spread")
    ended: list[int] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(threading.get_ident())

    async def step() -> None:
        await asyncio.sleep(0)

    with LoopThread() as one, LoopThread() as two, LoopThread() as three:
        threads = (one, two, three)
        for thread in threads:
            # In debug mode a loop refuses to be touched by a foreign thread.
            thread.loop.set_debug(True)
            for _ in range(10):
                thread.call(tasks.spawn, process.pid, work())
            thread.run(step())
        if is_async:
            result = asyncio.run(process.terminate_async(grace=5))
        else:
            result = process.terminate(grace=5)

    assert result.is_success
    assert result.stats.by_type == {"tasks": 30}
    assert sorted(ended) == sorted([thread.ident for thread in threads] * 10)  # type: ignore[type-var]  # started


def test_a_task_of_a_closed_loop_is_closed_without_a_complaint(
    manager: ProcessManager, tasks: AsyncTaskManager, quiet_loop: asyncio.AbstractEventLoop
) -> None:
    """'Task was destroyed but it is pending': it can never run again, so its exit is run for it."""
    process = manager.create_process("stranded")
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("left")

    task = spawn_on(quiet_loop, tasks, process.pid, work())
    quiet_loop.close()

    assert not tasks.cancel(process.pid, task)

    result = process.terminate(grace=5)

    assert result.is_success
    assert result.stats.resources_freed == 1
    assert result.stats.duration_seconds < 5
    assert log == ["left"]
    assert task.cancelled()


def test_a_task_that_never_began_is_closed_without_a_complaint(
    manager: ProcessManager, tasks: AsyncTaskManager, quiet_loop: asyncio.AbstractEventLoop
) -> None:
    """Nor is its coroutine reported as never awaited."""
    process = manager.create_process("stranded")

    async def start() -> None:
        tasks.spawn(process.pid, asyncio.sleep(1))

    quiet_loop.run_until_complete(start())
    quiet_loop.close()

    assert process.terminate().stats.resources_freed == 1


def test_an_exit_that_needs_its_closed_loop_is_an_error_in_the_account(
    manager: ProcessManager, tasks: AsyncTaskManager, quiet_loop: asyncio.AbstractEventLoop
) -> None:
    """What awaits in a `finally` cannot be run any more: the rest is, and the account says so."""
    process = manager.create_process("stranded")
    log: list[str] = []
    confirmed = quiet_loop.create_future()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await confirmed
            finally:
                log.append("left")

    spawn_on(quiet_loop, tasks, process.pid, work())
    quiet_loop.close()
    result = process.terminate(grace=5)

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "its exit skipped what it awaited" in result.errors[0].message
    assert log == ["left"]
    assert not manager.orchestrator.has_resources(process.pid)


def test_an_exit_that_fails_on_a_closed_loop_is_an_error_in_the_account(
    manager: ProcessManager, tasks: AsyncTaskManager, quiet_loop: asyncio.AbstractEventLoop
) -> None:
    """The exception is told, and the task is gone all the same."""
    process = manager.create_process("stranded")

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("boom")

    task = spawn_on(quiet_loop, tasks, process.pid, work())
    quiet_loop.close()
    result = process.terminate()

    assert "its exit raised LookupError: boom" in result.errors[0].message
    assert task.cancelled()


@pytest.mark.skipif(
    not hasattr(asyncio.Task, "get_context"), reason="needs Python 3.12, to find a task's context"
)
def test_an_exit_on_a_closed_loop_runs_in_the_tasks_own_context(
    manager: ProcessManager, tasks: AsyncTaskManager, quiet_loop: asyncio.AbstractEventLoop
) -> None:
    """A context variable set in the task can be reset by its exit (PEP 567)."""
    process = manager.create_process("stranded")
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    async def work() -> None:
        token = variable.set(1)
        try:
            await asyncio.Event().wait()
        finally:
            variable.reset(token)

    spawn_on(quiet_loop, tasks, process.pid, work())
    quiet_loop.close()

    assert process.terminate().errors == ()


def test_an_exit_that_hangs_on_a_closed_loop_is_left_behind(
    tasks: AsyncTaskManager, manager: ProcessManager, quiet_loop: asyncio.AbstractEventLoop
) -> None:
    """Cleanup runs somebody else's `finally` there, so it runs where the deadline can leave it."""
    process = manager.create_process("stranded")
    go = threading.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            go.wait(10)

    spawn_on(quiet_loop, tasks, process.pid, work())
    quiet_loop.close()
    threads = threading.active_count()
    manager._admission.revoke(process.pid)
    result = manager.orchestrator.cleanup_process(process.pid, deadline=0.1)

    assert [error.outcome for error in result.errors] == [Outcome.TIMEOUT]

    go.set()
    eventually(lambda: threading.active_count() == threads)


def test_a_task_of_a_stopped_loop_is_busy_until_the_loop_goes_on(
    manager: ProcessManager, tasks: AsyncTaskManager, quiet_loop: asyncio.AbstractEventLoop
) -> None:
    """Its cancellation is scheduled, nobody waits in vain, and nobody's loop is run by us."""
    process = manager.create_process("paused")
    task = spawn_on(quiet_loop, tasks, process.pid, asyncio.sleep(3600))
    result = process.terminate(grace=30)

    assert result.stats.duration_seconds < 5
    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "its event loop does not run" in result.errors[0].message
    assert "sleep" in result.errors[0].message
    assert not task.done()

    with contextlib.suppress(asyncio.CancelledError):
        quiet_loop.run_until_complete(task)

    assert task.cancelled()
    assert not manager.orchestrator.has_resources(process.pid)


def test_a_future_of_a_closed_loop_is_cancelled(
    manager: ProcessManager, quiet_loop: asyncio.AbstractEventLoop
) -> None:
    """No callback of it can run any more, and it is done all the same."""
    process = manager.create_process("stranded")
    future = quiet_loop.create_future()
    process.adopt(future)
    quiet_loop.close()

    assert process.terminate().stats.resources_freed == 1
    assert future.cancelled()
