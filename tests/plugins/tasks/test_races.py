"""Making against terminating, from several threads, again and again."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tasks_loops import LoopThread, eventually

from probate import BusyResourceError, Outcome, ProcessManager, ProcessTerminatedError
from probate.testing import KernelView
from probate_tasks import stacks

if TYPE_CHECKING:
    from probate import CleanupResult
    from probate_tasks import AsyncTaskManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

ROUNDS = 100


def test_a_task_is_not_left_behind_by_a_termination_that_came_in_between(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """A spawn either is refused or its task is ended: each that was ever made is done."""
    made: list[asyncio.Task[None]] = []

    async def spawn_until_refused(pid: int, started: threading.Event) -> None:
        while True:
            try:
                made.append(tasks.spawn(pid, asyncio.sleep(3600)))
            except ProcessTerminatedError:
                return
            started.set()
            await asyncio.sleep(0)

    async def all_tasks() -> int:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    with LoopThread() as thread:
        for _ in range(ROUNDS):
            process = manager.create_process("raced")
            started = threading.Event()
            spawning = asyncio.run_coroutine_threadsafe(
                spawn_until_refused(process.pid, started), thread.loop
            )
            assert started.wait(5)
            result = process.terminate(grace=5)
            spawning.result(5)

            assert result.errors == ()
            assert result.stats.resources_freed == len(made)
            assert all(task.cancelled() for task in made)
            assert not manager.orchestrator.has_resources(process.pid)
            made.clear()

        assert thread.run(all_tasks()) == 1


def test_a_call_is_not_made_after_a_termination_that_came_in_between(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """A submission is refused, or made, or cancelled; once all is settled nothing is called."""
    before = KernelView.take().threads
    for _ in range(ROUNDS):
        process = manager.create_process("raced")
        started, settled = threading.Event(), threading.Event()
        late: list[bool] = []
        futures: list[concurrent.futures.Future[None]] = []

        def call(settled: threading.Event = settled, late: list[bool] = late) -> None:
            late.extend([True] * settled.is_set())

        def submit_until_refused(
            pid: int = process.pid,
            futures: list[concurrent.futures.Future[None]] = futures,
            started: threading.Event = started,
        ) -> None:
            while True:
                try:
                    futures.append(tasks.submit(pid, call))
                except ProcessTerminatedError:
                    return
                started.set()

        thread = threading.Thread(target=submit_until_refused)
        thread.start()
        assert started.wait(5)
        result = process.terminate(grace=5)
        settled.set()
        thread.join(5)
        done, pending = concurrent.futures.wait(futures, 5)

        assert result.errors == ()
        assert (len(done), len(pending)) == (len(futures), 0)
        assert late == []
        assert not manager.orchestrator.has_resources(process.pid)
    eventually(lambda: KernelView.take().threads <= before)


def test_tasks_that_end_while_they_are_terminated_are_never_kept(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Without grace they end during the cleanups themselves: counted or not, none remains."""

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)

    async def start(pid: int) -> None:
        for _ in range(10):
            tasks.spawn(pid, work())
        await asyncio.sleep(0)

    with LoopThread() as thread:
        for _ in range(ROUNDS):
            process = manager.create_process("raced")
            thread.run(start(process.pid))
            result = process.terminate(grace=0)

            assert result.errors == ()
            assert result.stats.resources_freed == 10
            assert not manager.orchestrator.has_resources(process.pid)


def test_calls_that_end_just_when_they_are_reported_are_forgotten(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Busy or over at the very moment that somebody looks: in the end nobody owns them."""
    resource = manager.orchestrator["tasks"]
    for _ in range(ROUNDS):
        process = manager.create_process("raced")
        go = threading.Event()
        future = tasks.submit(process.pid, go.wait, 10)
        eventually(future.running)
        # The hooks by hand: one cleanup, and none after it that would find what this one left.
        tasks.quiesce(process.pid)
        releaser = threading.Thread(target=go.set)
        releaser.start()
        stats = resource.cleanup(process.pid)
        releaser.join()

        assert stats.resources_freed + stats.errors_encountered == 1
        eventually(lambda pid=process.pid: not resource.has_resources(pid))  # type: ignore[misc]  # bound as a default


def test_two_terminations_at_once_agree(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """The second caller waits for and gets the same result; neither waits for the whole grace."""
    with LoopThread() as thread:
        for _ in range(ROUNDS // 4):
            process = manager.create_process("twice")
            thread.call(tasks.spawn, process.pid, asyncio.sleep(3600))
            with concurrent.futures.ThreadPoolExecutor(4) as executor:
                results: set[CleanupResult] = set()
                calls = [executor.submit(process.terminate, 5) for _ in range(4)]
                texts = {str(call.result(10)) for call in calls}

            assert results == set()
            assert texts == {
                f"PID {process.pid} cleanup: 1 resources freed, 0 bytes freed, 0 errors"
            }


def test_two_cleanups_of_one_pid_at_once_both_end_early(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Whoever asks is told, also if somebody else asked as well and was first to count."""
    from probate import ResourceOrchestrator
    from probate_tasks import TaskResource

    resource = TaskResource()
    orchestrator = ResourceOrchestrator().register(resource)
    with LoopThread() as thread, concurrent.futures.ThreadPoolExecutor(2) as executor:
        for pid in range(1, ROUNDS // 2):
            for _ in range(5):
                thread.call(resource.manager.spawn, pid, asyncio.sleep(3600))
            calls = [executor.submit(orchestrator.cleanup_process, pid, grace=5) for _ in range(2)]
            results = [call.result(10) for call in calls]

            assert sum(result.stats.resources_freed for result in results) == 5
            assert all(result.stats.duration_seconds < 4 for result in results)
            assert not orchestrator.has_resources(pid)


def test_a_task_that_ends_while_it_is_given_back_is_forgotten(
    manager: ProcessManager, tasks: AsyncTaskManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found running, it is put back; ended meanwhile, it is not owned until its owner's end."""
    process = manager.create_process("raced")
    holdings = type(tasks.table._by_owner)
    put_back = holdings.put_back
    with LoopThread() as thread:
        go = thread.call(asyncio.Event)

        async def work() -> None:
            while not go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await go.wait()

        async def end(task: asyncio.Task[None]) -> None:
            go.set()
            await task
            await asyncio.sleep(0)

        task = thread.call(tasks.spawn, process.pid, work())
        thread.run(asyncio.sleep(0))

        def put_back_late(self: Any, pid: int, kept: Any) -> None:
            thread.run(end(task))
            put_back(self, pid, kept)

        monkeypatch.setattr(holdings, "put_back", put_back_late)
        with pytest.raises(BusyResourceError):
            process.give_back(task)

        assert task.done()
        eventually(lambda: not manager.orchestrator.has_resources(process.pid))


def test_a_task_that_ends_while_its_stack_is_read_was_released(
    manager: ProcessManager, tasks: AsyncTaskManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No account says BUSY of what is over."""
    process = manager.create_process("raced")
    of_task = stacks.of_task
    with LoopThread() as thread:
        go = thread.call(asyncio.Event)

        async def work() -> None:
            while not go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await go.wait()

        async def end(task: asyncio.Task[None]) -> None:
            go.set()
            await task

        task = thread.call(tasks.spawn, process.pid, work())
        thread.run(asyncio.sleep(0))

        def read_late(task: asyncio.Task[None]) -> str:
            text = of_task(task)
            thread.run(end(task))
            return text

        monkeypatch.setattr(stacks, "of_task", read_late)

        assert process.give_back(task) is Outcome.RELEASED
        assert not manager.orchestrator.has_resources(process.pid)
