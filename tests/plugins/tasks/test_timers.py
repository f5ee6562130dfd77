"""What is to be called later: timers with a thread of their own, and handles of event loops."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from tasks_loops import LoopThread, eventually, until

from probate import AlreadyOwnedError, Outcome, ProcessManager, UnadoptableError
from probate_tasks import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate_tasks import AsyncTaskManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

Factory = "Callable[[], asyncio.AbstractEventLoop]"

on_each_loop = pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@pytest.fixture(autouse=True, scope="module")
def warmed_up() -> None:
    """Uvloop's first pipes are for good."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))


def test_a_timer_calls_nothing_after_its_owner(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """It is cancelled, its thread is waited for, and it counts; so does one not started."""
    process = manager.create_process("later")
    called = threading.Event()
    timer, unstarted = (threading.Timer(3600, called.set) for _ in range(2))
    timer.start()
    for each in (timer, unstarted):
        process.adopt(each)
        with pytest.raises(AlreadyOwnedError):
            process.adopt(each)

    assert tasks.status(process.pid) == {
        timer: TaskStatus.RUNNING,
        unstarted: TaskStatus.PENDING,
    }

    result = process.terminate(grace=5)

    assert result.is_success
    assert result.stats.resources_freed == 2
    assert not timer.is_alive()

    unstarted.start()
    unstarted.join(5)
    assert not called.is_set()


def test_a_timer_whose_function_runs_is_waited_for_or_busy(manager: ProcessManager) -> None:
    """BUSY with where its function stands; owned until that returns, and forgotten then."""
    process = manager.create_process("late")
    entered, opened = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        opened.wait(10)

    timer = threading.Timer(0, work)
    timer.start()
    process.adopt(timer)
    assert entered.wait(5)
    result = process.terminate(grace=0.05)

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "opened.wait(10)" in result.errors[0].message

    opened.set()
    eventually(lambda: not manager.orchestrator.has_resources(process.pid))
    timer.join(5)


def test_a_timer_that_terminates_its_own_process_gets_the_account(manager: ProcessManager) -> None:
    """A watchdog does not wait for itself."""
    process = manager.create_process("watched")
    results: list[Any] = []
    timer = threading.Timer(0.01, lambda: results.append(process.terminate(grace=30)))
    process.adopt(timer)
    timer.start()
    timer.join(10)

    assert "terminates its own process" in results[0].errors[0].message


def test_a_timer_that_has_ended_is_no_leak(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Timers tell nobody when they have: whoever asks is told the truth all the same."""
    with manager.process("timed") as process:
        timer = threading.Timer(0, int)
        process.adopt(timer)
        timer.start()
        timer.join(5)

        assert manager.orchestrator.usage(process.pid)["tasks"].count == 0
        assert tasks.status(process.pid) == {}
        tasks.close(process.pid, timer)

        with pytest.raises(UnadoptableError):
            process.adopt(timer)
    assert manager.wait(process.pid, 5).leaks == ()


@on_each_loop
@pytest.mark.parametrize("is_soon", [True, False])
def test_what_a_loop_is_to_call_is_not_called_after_its_owner(
    manager: ProcessManager, factory: Callable[[], asyncio.AbstractEventLoop], is_soon: bool
) -> None:
    """Handles are cancelled on their loop, whichever made them, and count."""
    called: list[int] = []

    async def main() -> None:
        process = manager.create_process("later")
        loop = asyncio.get_running_loop()
        handle: asyncio.Handle
        handle = (
            loop.call_soon(called.append, 1) if is_soon else loop.call_later(0, called.append, 1)
        )
        process.adopt(handle)
        result = process.terminate(grace=0)

        assert result.is_success
        assert result.stats.resources_freed == 1
        assert handle.cancelled()

        await asyncio.sleep(0.01)
        assert called == []

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@on_each_loop
@pytest.mark.parametrize("is_soon", [True, False])
def test_a_handle_is_forgotten_when_it_was_called(
    manager: ProcessManager,
    tasks: AsyncTaskManager,
    factory: Callable[[], asyncio.AbstractEventLoop],
    is_soon: bool,
) -> None:
    """It is owned until then, not longer; cancelled by its user, it is owned no more either."""
    called: list[int] = []

    async def main() -> None:
        process = manager.create_process("later")
        loop = asyncio.get_running_loop()
        handle: asyncio.Handle
        handle = (
            loop.call_soon(called.append, 1) if is_soon else loop.call_later(0, called.append, 1)
        )
        process.adopt(handle)
        unused = loop.call_later(3600, called.append, 2)
        process.adopt(unused)
        assert tasks.status(process.pid, handle) is TaskStatus.PENDING
        await until(lambda: called)
        await until(lambda: list(tasks.status(process.pid)) == [unused])
        unused.cancel()

        assert tasks.status(process.pid) == {}
        assert (await process.terminate_async()).stats.resources_freed == 0

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_a_handle_is_cancelled_from_a_foreign_thread_by_its_own_loop(
    manager: ProcessManager,
) -> None:
    """And waited for: a loop in debug mode would refuse anybody else."""
    process = manager.create_process("later")
    with LoopThread() as thread:
        thread.loop.set_debug(True)
        handle = thread.call(thread.loop.call_later, 3600, int)
        process.adopt(handle)
        result = process.terminate(grace=5)

        assert result.is_success
        assert result.stats.resources_freed == 1
        assert handle.cancelled()


def test_a_handle_of_a_loop_that_does_not_run_is_busy(manager: ProcessManager) -> None:
    """Until somebody runs the loop, which cancels it, or closes it."""
    busy, closed = manager.create_process("busy"), manager.create_process("closed")
    loop = asyncio.new_event_loop()
    try:
        first, second = loop.call_later(3600, int), loop.call_later(3600, int)
        busy.adopt(first)
        closed.adopt(second)
        result = busy.terminate(grace=5)

        assert [error.outcome for error in result.errors] == [Outcome.BUSY]
        assert "run the loop" in result.errors[0].message

        loop.run_until_complete(asyncio.sleep(0))
        assert first.cancelled()
        assert not manager.orchestrator.has_resources(busy.pid)
    finally:
        loop.close()
    assert closed.terminate(grace=5).is_success


def test_a_handle_that_tells_no_loop_is_adopted_where_that_runs(manager: ProcessManager) -> None:
    """Uvloop's do not say which is theirs: elsewhere the refusal says what to do."""
    process = manager.create_process("later")
    loop = uvloop.new_event_loop()
    handle = loop.call_later(3600, int)
    with pytest.raises(UnadoptableError) as refusal:
        process.adopt(handle)
    handle.cancel()
    loop.close()

    group = refusal.value.__cause__
    assert isinstance(group, ExceptionGroup)
    assert "adopt it on the thread where that runs" in str(group.exceptions[0])
