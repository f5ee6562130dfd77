"""asyncio tasks of a process: spawned, cancelled with it, forgotten when they end."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from probate import (
    NoCurrentProcessError,
    ProcessManager,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
    current_process,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from probate_tasks import AsyncTaskManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def test_a_task_is_asyncios_own_and_is_forgotten_when_it_ends(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """A spawned task is a native one; whoever awaited it finds it owned by nobody."""

    async def main() -> None:
        process = manager.create_process("worker")
        task = tasks.spawn(process.pid, answer(42), name="the answer")

        assert type(task) is asyncio.Task
        assert task.get_name() == "the answer"
        assert manager.orchestrator.has_resources(process.pid)
        assert await task == 42
        assert not manager.orchestrator.has_resources(process.pid)

        result = await manager.terminate_process_async(process.pid)

        assert result.is_success
        assert result.stats.resources_freed == 0

    asyncio.run(main())


def test_a_pending_task_is_cancelled_within_the_grace_and_counted(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """'Task was destroyed but it is pending': tasks are cancelled and awaited."""

    async def main() -> None:
        process = manager.create_process("worker")
        spawned = [tasks.spawn(process.pid, wait_for_ever()) for _ in range(200)]
        await asyncio.sleep(0)

        result = await manager.terminate_process_async(process.pid, grace=5)

        assert result.is_success
        assert result.stats.by_type == {"tasks": 200}
        assert result.stats.duration_seconds < 5
        assert all(task.cancelled() for task in spawned)

    asyncio.run(main())


def test_tasks_stop_even_without_grace(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """They are busy at the first look, have ended by the second, and the account is clean."""

    async def main() -> None:
        process = manager.create_process("worker")
        spawned = [tasks.spawn(process.pid, wait_for_ever()) for _ in range(20)]

        result = await manager.terminate_process_async(process.pid, grace=0)

        assert result.is_success
        assert result.stats.resources_freed == 20
        assert all(task.done() for task in spawned)
        assert not manager.orchestrator.has_resources(process.pid)

    asyncio.run(main())


def test_a_slow_exit_is_waited_for(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """Within the grace a task's `finally` runs to its end, awaits included, undisturbed."""

    async def main() -> list[str]:
        log: list[str] = []
        process = manager.create_process("worker")

        async def work() -> None:
            try:
                await wait_for_ever()
            finally:
                await asyncio.sleep(0.05)
                log.append("saved")

        tasks.spawn(process.pid, work())
        await asyncio.sleep(0)
        result = await manager.terminate_process_async(process.pid, grace=5)
        log.append(str(result.is_success))
        return log

    assert asyncio.run(main()) == ["saved", "True"]


def test_a_tasks_exit_runs_in_the_task(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """A cancel scope exited in another task than it was entered in: the exit is the task's own."""
    places: list[tuple[object, int]] = []

    class Scope:
        def note(self) -> None:
            places.append((asyncio.current_task(), threading.get_ident()))

        async def __aenter__(self) -> None:
            self.note()

        async def __aexit__(self, *_: object) -> None:
            await asyncio.sleep(0)
            self.note()

    async def work() -> None:
        async with Scope():
            await wait_for_ever()

    async def main() -> None:
        process = manager.create_process("worker")
        task = tasks.spawn(process.pid, work())
        await asyncio.sleep(0)
        # From a foreign thread, which may not touch the loop.
        result = await asyncio.to_thread(manager.terminate_process, process.pid, 5)

        assert result.is_success
        assert places == [(task, threading.get_ident())] * 2

    asyncio.run(main())


def test_a_task_that_nobody_else_holds_is_kept_alive(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """The loop holds tasks weakly, and one whose waker is a cycle vanishes: we hold it strongly."""

    async def main() -> None:
        process = manager.create_process("worker")
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        waker: list[weakref.ref[asyncio.Future[None]]] = []

        async def work() -> None:
            # Only this frame refers to the future, and only the task to this frame.
            own = loop.create_future()
            waker.append(weakref.ref(own))
            await own
            ended.set()

        task = weakref.ref(tasks.spawn(process.pid, work()))
        await asyncio.sleep(0)
        gc.collect()

        assert task() is not None

        future = waker[0]()
        assert future is not None
        future.set_result(None)
        del future
        async with asyncio.timeout(5):
            await ended.wait()
        await asyncio.sleep(0)
        gc.collect()

        assert task() is None

    asyncio.run(main())


def test_the_current_process_is_meant_and_inherited(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Without a pid, spawn is for the current process, which is current in the task, too."""

    async def whose() -> int:
        return current_process().pid

    async def main() -> None:
        async with manager.process("job") as process:
            task = tasks.spawn(whose())

            assert list(tasks.status()) == [task]
            assert await task == process.pid

        coroutine = whose()
        with pytest.raises(NoCurrentProcessError):
            tasks.spawn(coroutine)
        coroutine.close()

    asyncio.run(main())


def test_a_task_that_fails_is_forgotten_and_its_exception_stays_its_own(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """A failure is neither retrieved nor hidden: asyncio still reports it when nobody does."""
    reports: list[dict[str, Any]] = []

    async def fail() -> None:
        raise LookupError("boom")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        process = manager.create_process("worker")
        task = tasks.spawn(process.pid, fail())
        with pytest.raises(LookupError):
            await task
        tasks.spawn(process.pid, fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

        assert not manager.orchestrator.has_resources(process.pid)

    asyncio.run(main())

    assert [report["message"] for report in reports] == ["Task exception was never retrieved"]


def test_a_task_that_was_cancelled_directly_is_not_counted(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """What ended before we asked is nothing that we freed."""

    async def main() -> None:
        process = manager.create_process("direct")
        task = tasks.spawn(process.pid, wait_for_ever())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        result = await manager.terminate_process_async(process.pid, grace=1)

        assert result.is_success
        assert result.stats.resources_freed == 0

    asyncio.run(main())


def test_a_limit_refuses_before_a_task_is_made(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """No task appears on the loop; one that ends makes room, at once."""

    async def main() -> None:
        limits = ResourceLimits(by_kind={"tasks": {"max_count": 1}})  # type: ignore[dict-item]  # as from a file
        process = manager.create_process("limited", limits=limits)
        for value in range(50):
            assert await tasks.spawn(process.pid, answer(value)) == value
        first = tasks.spawn(process.pid, answer(1))
        before = asyncio.all_tasks()
        with pytest.raises(ResourceLimitExceeded, match="at most 1"):
            tasks.spawn(process.pid, wait_for_ever())

        assert asyncio.all_tasks() == before
        assert await first == 1

    asyncio.run(main())


def test_a_terminated_owner_gets_nothing(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """Late registration for a terminated pid leaked for ever: it is refused, and nothing runs."""
    has_run: list[bool] = []

    async def work() -> None:
        has_run.append(True)

    async def main() -> None:
        process = manager.create_process("dead")
        await manager.terminate_process_async(process.pid)
        with pytest.raises(ProcessTerminatedError):
            tasks.spawn(process.pid, work())
        await asyncio.sleep(0)

    asyncio.run(main())

    assert has_run == []


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="needs Python 3.12")
def test_an_eager_task_that_ends_at_once_is_never_owned(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """With the eager factory a task may be over when spawn returns; it takes no room."""

    async def at_once() -> int:
        return 7

    async def main() -> None:
        factory = asyncio.eager_task_factory  # type: ignore[attr-defined,unused-ignore]  # from 3.12
        asyncio.get_running_loop().set_task_factory(factory)
        limits = ResourceLimits(max_count=1)
        process = manager.create_process("eager", limits=limits)
        for _ in range(10):
            task = tasks.spawn(process.pid, at_once())

            assert task.result() == 7
            assert not manager.orchestrator.has_resources(process.pid)

        tasks.spawn(process.pid, wait_for_ever())
        result = await manager.terminate_process_async(process.pid, grace=5)

        assert result.stats.resources_freed == 1

    asyncio.run(main())


def test_a_scope_left_normally_lists_what_still_runs_as_leaked(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """A task that outlives its scope is cancelled, and named."""

    async def main() -> None:
        async with manager.process("job") as process:
            tasks.spawn(wait_for_ever(), "forgotten")

        assert process.result is not None
        assert [leak.resource.description for leak in process.result.leaks] == [
            "task 'forgotten' of wait_for_ever(), pending"
        ]

    asyncio.run(main())


def test_the_loop_may_end_before_the_process(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """asyncio.run cancels what is left on its loop; the tasks are forgotten like any other."""
    process = manager.create_process("worker")

    async def main() -> None:
        tasks.spawn(process.pid, wait_for_ever())

    asyncio.run(main())

    assert not manager.orchestrator.has_resources(process.pid)


def test_any_coroutine_object_will_do(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """collections.abc.Coroutine is enough, as for asyncio itself."""

    async def main() -> None:
        process = manager.create_process("worker")
        coroutine: Coroutine[Any, Any, int] = answer(3)

        assert await tasks.spawn(process.pid, coroutine) == 3

    asyncio.run(main())
