"""The hooks, as the orchestrator calls them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest
from tasks_loops import eventually

import probate_tasks
from probate import CleanupStats, Ordering, ProcessManager, ResourceOrchestrator
from probate_tasks import AsyncTaskManager, TaskResource

if TYPE_CHECKING:
    from probate import CleanupResult

pytestmark = pytest.mark.usefixtures("nothing_remains")


def without_times(result: CleanupResult) -> CleanupStats:
    return result.stats.model_copy(update={"duration_seconds": 0})


def test_the_plugin_is_found_by_its_kind() -> None:
    """Entry point `tasks` of group `probate.resources`; a class called without arguments."""
    (found,) = entry_points(group="probate.resources", name="tasks")

    assert found.load() is TaskResource
    assert TaskResource().ordering() == Ordering(priority=40)
    assert isinstance(TaskResource().manager, AsyncTaskManager)


def test_a_manager_may_be_given() -> None:
    """It is the one in use."""
    manager = AsyncTaskManager(max_threads=1)

    assert TaskResource(manager).manager is manager


def test_all_public_names_exist() -> None:
    """What `__all__` names can be had."""
    assert [name for name in probate_tasks.__all__ if not hasattr(probate_tasks, name)] == []


def test_nothing_to_free(manager: ProcessManager) -> None:
    """A process without tasks has an empty account."""
    result = manager.create_process("idle").terminate(grace=5)

    assert without_times(result) == CleanupStats()


def test_a_second_cleanup_finds_nothing() -> None:
    """Idempotent: what was freed is freed once, and the pid may own again."""
    resource = TaskResource()
    orchestrator = ResourceOrchestrator().register(resource)

    async def main() -> None:
        for _ in range(2):
            resource.manager.spawn(7, asyncio.sleep(3600))
            first = await orchestrator.cleanup_process_async(7, grace=5)
            second = await orchestrator.cleanup_process_async(7, grace=5)

            assert first.stats.by_type == {"tasks": 1}
            assert without_times(second) == CleanupStats()

    asyncio.run(main())


def test_the_hooks_by_hand() -> None:
    """Quiesce, then wait, then cleanup: freed; and the same without holding what quiesce gave."""
    resource = TaskResource()

    async def main() -> None:
        for holds in (True, False):
            task = resource.manager.spawn(7, asyncio.sleep(3600))
            await asyncio.sleep(0)
            requests = list(resource.quiesce(7))

            assert len(requests) == 1

            if not holds:
                requests.clear()
            await asyncio.wait([task])

            # It is over, and is the owner's until the cleanup has counted it.
            assert resource.has_resources(7)
            assert [request.done() for request in requests] == [True] * holds
            assert resource.cleanup(7).resources_freed == 1
            assert not resource.has_resources(7)

    asyncio.run(main())


def test_one_future_stands_for_all_that_are_asked() -> None:
    """Done with the last of them; whoever asks again has another one, which is told as well."""
    resource = TaskResource()

    async def main() -> None:
        events = [asyncio.Event() for _ in range(3)]

        async def work(event: asyncio.Event) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                await event.wait()

        tasks = [resource.manager.spawn(7, work(event)) for event in events]
        await asyncio.sleep(0)
        requests = [*resource.quiesce(7), *resource.quiesce(7)]

        assert len(requests) == 2

        for event, task in zip(events, tasks, strict=True):
            assert [request.done() for request in requests] == [False, False]

            event.set()
            await asyncio.wait([task])

        assert [request.done() for request in requests] == [True, True]
        assert resource.cleanup(7).resources_freed == 3

    asyncio.run(main())


def test_a_cleanup_that_nothing_came_before_cancels() -> None:
    """Cleanup alone cancels, reports BUSY, and what then ends is forgotten."""
    resource = TaskResource()

    async def main() -> None:
        task = resource.manager.spawn(7, asyncio.sleep(3600))
        await asyncio.sleep(0)
        stats = resource.cleanup(7)

        assert [error.outcome for error in stats.errors] == ["busy"]

        await asyncio.wait([task])

        assert task.cancelled()
        assert not resource.has_resources(7)

    asyncio.run(main())


def test_a_cleanup_that_nothing_came_before_cancels_what_is_queued() -> None:
    """A call that no thread has taken up is freed by cleanup alone."""
    resource = TaskResource(AsyncTaskManager(max_threads=1))
    go = threading.Event()
    running = resource.manager.submit(7, go.wait, 10)
    eventually(running.running)
    queued = resource.manager.submit(7, int)
    stats = resource.cleanup(7)
    go.set()

    assert queued.cancelled()
    assert (stats.resources_freed, stats.errors_encountered) == (1, 1)
    assert running.result(5)
    eventually(lambda: not resource.has_resources(7))


@pytest.mark.parametrize("looks_again", [True, False])
def test_what_ends_between_two_looks_is_counted_or_forgotten(looks_again: bool) -> None:
    """Busy first, over then: owned for as long as that termination may still come to count it."""
    resource = TaskResource()
    go = threading.Event()
    future = resource.manager.submit(7, go.wait, 10)
    eventually(future.running)
    # A termination holds these until it is through.
    requests = resource.manager.quiesce(7)
    first = resource.cleanup(7)
    go.set()
    concurrent.futures.wait(requests, 5)

    assert first.errors_encountered == 1
    assert resource.has_resources(7)

    if looks_again:
        second = resource.cleanup(7)

        assert (second.resources_freed, second.errors_encountered) == (1, 0)
        assert not resource.has_resources(7)
    requests.clear()
    eventually(lambda: not resource.has_resources(7))


def test_usage_describes_each(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """What it is, what it runs, and how far it has come; oldest first."""

    async def main() -> None:
        process = manager.create_process("worker")
        go = threading.Event()
        tasks.spawn(process.pid, asyncio.sleep(3600), "nap")
        future = tasks.submit(process.pid, go.wait, 10)
        process.adopt(asyncio.get_running_loop().create_future())
        pooled = asyncio.get_running_loop().run_in_executor(None, go.wait, 10)
        process.adopt(pooled)
        eventually(future.running)
        usage = manager.orchestrator.usage(process.pid)["tasks"]

        assert usage.count == 4
        assert [info.description for info in usage.resources] == [
            "task 'nap' of sleep(), pending",
            "call of Event.wait, running",
            "asyncio future, pending",
            "call in an executor, running",
        ]

        go.set()
        await pooled

    asyncio.run(main())


def test_has_resources_does_not_depend_on_what_others_own() -> None:
    """It looks at the owner's own entry, whoever else is alive, and forgets the dead entirely."""
    resource = TaskResource()

    async def main() -> None:
        for pid in range(1, 101):
            resource.manager.spawn(pid, asyncio.sleep(0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert not any(resource.has_resources(pid) for pid in range(1, 101))
        assert resource.manager.table.pids() == []
        assert resource.manager._workers._crews == {}

    asyncio.run(main())
