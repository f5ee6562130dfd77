"""Terminations on an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from core_threads import at_once
from plugins_things import InlineThingResource, Thing, ThingResource, managed, orchestrate

from probate import CleanupResult, ProcessState, ProcessTerminatedError
from probate.termination import waiting

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

PID = 7


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def test_the_loop_turns_while_a_watched_hook_runs() -> None:
    """A cleanup that takes its time takes the time of its own thread."""
    plugin = ThingResource()
    turned = threading.Event()
    # The release waits for the loop to have turned: were it blocked, this would time out.
    plugin.give(PID, "slow", lambda: None if turned.wait(5) else 1 / 0)

    async def main() -> CleanupResult:
        asyncio.get_running_loop().call_later(0.02, turned.set)
        return await orchestrate(plugin).cleanup_process_async(PID)

    assert run(main()).is_success


def test_users_on_this_very_loop_get_their_grace() -> None:
    """A task that needs the loop to stop has stopped before anything is freed."""
    plugin = ThingResource()
    thing = plugin.give(PID)
    at_the_end: list[int] = []

    async def main() -> CleanupResult:
        async def user() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.02)
                at_the_end.append(thing.releases)

        task = asyncio.create_task(user())
        await asyncio.sleep(0)
        plugin.faults["quiesce"] = lambda: [task] if task.cancel() else []
        return await orchestrate(plugin).cleanup_process_async(PID, grace=5)

    assert run(main()).is_success
    assert at_the_end == [0]


@pytest.mark.parametrize("kind", [ThingResource, InlineThingResource])
def test_many_that_begin_at_once_leave_the_loop_its_turns(
    kind: type[ThingResource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps of all never add up to one long one: with no time for a second, one has each."""
    monkeypatch.setattr(waiting, "_TURN", 0)
    plugin = kind()
    orchestrator = orchestrate(plugin)
    begun: list[int] = []
    has_turn, turns = waiting._has_turn, 0

    def count(loop: asyncio.AbstractEventLoop) -> bool:
        if has := has_turn(loop):
            begun.append(turns)
        return has

    monkeypatch.setattr(waiting, "_has_turn", count)
    for pid in range(10):
        plugin.give(pid)

    async def main() -> list[CleanupResult]:
        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        ticker = asyncio.create_task(turn())
        results = await asyncio.gather(*map(orchestrator.cleanup_process_async, range(10)))
        ticker.cancel()
        return results

    assert all(result.is_success for result in run(main()))
    assert len(begun) >= 10
    assert len(set(begun)) == len(begun)


def test_the_loop_waits_for_no_thread_to_start_or_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither takes long alone; but where many are terminated at once, all of them do."""
    plugin = ThingResource()
    orchestrator = orchestrate(plugin)
    waits: list[int] = []
    start, join = threading.Thread.start, threading.Thread.join

    def note_start(thread: threading.Thread) -> None:
        waits.append(threading.get_ident())
        start(thread)

    def note_join(thread: threading.Thread, timeout: float | None = None) -> None:
        waits.append(threading.get_ident())
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "start", note_start)
    monkeypatch.setattr(threading.Thread, "join", note_join)
    for pid in range(10):
        plugin.give(pid)

    async def main() -> list[CleanupResult]:
        return await asyncio.gather(*map(orchestrator.cleanup_process_async, range(10)))

    assert all(result.is_success for result in run(main()))
    assert len(waits) >= 10
    assert threading.get_ident() not in waits


def test_the_sync_form_on_the_loops_own_thread_skips_the_grace() -> None:
    """It cannot wait for the loop that it blocks, so it does not try."""
    plugin = InlineThingResource()
    plugin.give(PID)

    async def main() -> CleanupResult:
        plugin.futures.append(asyncio.get_running_loop().create_future())
        return orchestrate(plugin).cleanup_process(PID, grace=30)

    began = time.monotonic()

    assert run(main()).stats.resources_freed == 1
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("by_manager", [False, True])
def test_a_cancellation_is_raised_when_all_is_released(by_manager: bool) -> None:
    """Cancelled in its grace, the terminating task ends the grace, frees everything, and ends."""
    plugins = [ThingResource(kind) for kind in "abc"]
    manager = managed(*plugins, grace=30)
    process = manager.create_process("p")
    for plugin in plugins:
        plugin.give(process.pid)

    async def main() -> None:
        plugins[0].futures.append(asyncio.get_running_loop().create_future())
        terminate = (
            manager.terminate_process_async(process.pid)
            if by_manager
            else manager.orchestrator.cleanup_process_async(process.pid, grace=30)
        )
        task = asyncio.create_task(terminate)
        while "quiesce a" not in plugins[0].log:  # noqa: ASYNC110  it has no event
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    began = time.monotonic()
    run(main())

    assert time.monotonic() - began < 5
    assert [process.pid in plugin.table for plugin in plugins] == [False] * 3
    if by_manager:
        assert process.state is ProcessState.TERMINATED
        assert process.result is not None
        assert process.result.stats.resources_freed == 3


def test_a_cancellation_during_a_hook_waits_for_the_hook() -> None:
    """Cleanup goes on; the other kinds follow; then the cancellation is raised, once."""
    first, second = ThingResource("first", 2), ThingResource("second", 1)
    entered, go_on = threading.Event(), threading.Event()

    def behave() -> None:
        entered.set()
        go_on.wait(5)

    first.give(PID, "slow", behave)
    thing = second.give(PID)

    async def main() -> None:
        task = asyncio.create_task(orchestrate(first, second).cleanup_process_async(PID))
        while not entered.is_set():  # noqa: ASYNC110  it is a thread's event
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())

    assert PID not in first.table
    assert thing.releases == 1


def test_a_timeout_around_a_termination_bounds_its_grace() -> None:
    """asyncio.timeout works as ever: TimeoutError, with everything released."""
    plugin = ThingResource()
    plugin.give(PID)

    async def main() -> None:
        plugin.futures.append(asyncio.get_running_loop().create_future())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await orchestrate(plugin).cleanup_process_async(PID, grace=30)

    run(main())

    assert PID not in plugin.table


@pytest.fixture
def foreign_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs on another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


@pytest.mark.parametrize("form", ["sync", "async"])
def test_futures_of_another_threads_loop_are_waited_for(
    foreign_loop: asyncio.AbstractEventLoop, form: str
) -> None:
    """The wait is over when that loop has finished them, on its own thread."""
    plugin = ThingResource()
    thing = plugin.give(PID)
    future = foreign_loop.create_future()
    plugin.futures.append(future)
    released_before: list[int] = []

    def finish() -> None:
        released_before.append(thing.releases)
        future.set_result(None)

    foreign_loop.call_soon_threadsafe(foreign_loop.call_later, 0.05, finish)
    began = time.monotonic()
    orchestrator = orchestrate(plugin)
    if form == "sync":
        orchestrator.cleanup_process(PID, grace=20)
    else:
        run(orchestrator.cleanup_process_async(PID, grace=20))

    assert time.monotonic() - began < 5
    assert released_before == [0]
    assert thing.releases == 1


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("form", ["sync", "async"])
def test_futures_of_a_stopped_loop_are_not_waited_for(form: str, closed: bool) -> None:
    """They can get nowhere; the rest of the grace is for those that can."""
    plugin = ThingResource()
    plugin.give(PID)
    loop = asyncio.new_event_loop()
    plugin.futures.append(loop.create_future())
    if closed:
        loop.close()
    began = time.monotonic()
    orchestrator = orchestrate(plugin)
    if form == "sync":
        orchestrator.cleanup_process(PID, grace=20)
    else:
        run(orchestrator.cleanup_process_async(PID, grace=20))
    loop.close()

    assert time.monotonic() - began < 5
    assert PID not in plugin.table


def test_concurrent_callers_get_the_very_same_result() -> None:
    """From tasks of one loop, and from threads beside it."""
    plugin = ThingResource()
    manager = managed(plugin, grace=5)
    process = manager.create_process("p")
    plugin.give(process.pid)

    async def main() -> list[CleanupResult]:
        future = asyncio.get_running_loop().create_future()
        plugin.futures.append(future)
        asyncio.get_running_loop().call_later(0.05, future.set_result, None)
        tasks = [manager.terminate_process_async(process.pid) for _ in range(5)]
        thread = asyncio.to_thread(manager.terminate_process, process.pid)
        waiter = manager.wait_async(process.pid)
        return list(await asyncio.gather(*tasks, thread, waiter))

    results = run(main())

    assert all(result is results[0] for result in results)
    assert results[0].stats.resources_freed == 1


def test_a_waiter_that_is_cancelled_disturbs_nobody() -> None:
    """The second caller may give up; the termination goes on, for all others."""
    plugin = ThingResource()
    manager = managed(plugin, grace=5)
    process = manager.create_process("p")
    plugin.give(process.pid)

    async def main() -> CleanupResult:
        future = asyncio.get_running_loop().create_future()
        plugin.futures.append(future)
        first = asyncio.create_task(manager.terminate_process_async(process.pid))
        second = asyncio.create_task(manager.terminate_process_async(process.pid))
        third = asyncio.create_task(manager.wait_async(process.pid))
        await asyncio.sleep(0.02)
        second.cancel()
        third.cancel()
        await asyncio.gather(second, third, return_exceptions=True)
        future.set_result(None)
        return await first

    assert run(main()).stats.resources_freed == 1


def test_async_context_managers_end_what_they_began() -> None:
    """`async with` a manager and a process: all is freed on the way out."""
    plugin = ThingResource()

    async def main() -> list[bool]:
        async with managed(plugin) as manager:
            other = manager.create_process("other")
            plugin.give(other.pid)
            async with manager.process("p") as process:
                plugin.give(process.pid)
            inner = process.pid in plugin.table
            with pytest.raises(ProcessTerminatedError):
                plugin.give(process.pid)
        return [inner, other.pid in plugin.table]

    assert run(main()) == [False, False]


def test_leaving_a_manager_waits_for_what_another_task_ends() -> None:
    """`async with` terminates all: when it is left, all is terminated, also by others."""
    plugin = ThingResource()
    entered, go_on = threading.Event(), threading.Event()

    def behave() -> None:
        entered.set()
        go_on.wait(5)

    async def main() -> ProcessState:
        async with managed(plugin) as manager:
            process = manager.create_process("p")
            plugin.give(process.pid, "slow", behave)
            task = asyncio.create_task(process.terminate_async())
            await asyncio.to_thread(entered.wait, 5)
            asyncio.get_running_loop().call_later(0.05, go_on.set)
        state = process.state
        await task
        return state

    assert run(main()) is ProcessState.TERMINATED


def test_many_terminations_at_once_on_one_loop() -> None:
    """Their graces run side by side."""
    plugin = ThingResource()
    manager = managed(plugin, grace=0.3)
    pids = [manager.create_process(str(number)).pid for number in range(20)]
    for pid in pids:
        plugin.give(pid)

    async def main() -> list[CleanupResult]:
        plugin.futures.append(asyncio.get_running_loop().create_future())
        return list(await asyncio.gather(*map(manager.terminate_process_async, pids)))

    began = time.monotonic()
    results = run(main())

    assert time.monotonic() - began < 3
    assert [result.stats.resources_freed for result in results] == [1] * 20


def test_loops_on_several_threads_share_an_orchestrator() -> None:
    """Each terminates its own pids; nothing is mixed up."""
    plugin = ThingResource()
    orchestrator = orchestrate(plugin)

    async def some(base: int) -> list[CleanupResult]:
        for pid in range(base, base + 20):
            plugin.table.add(pid, Thing(), pid)
        cleanups = [orchestrator.cleanup_process_async(pid) for pid in range(base, base + 20)]
        return list(await asyncio.gather(*cleanups))

    outcomes = at_once([lambda base=base: run(some(base)) for base in (100, 200, 300)])  # type: ignore[misc]  # mypy cannot infer it

    for results in outcomes:
        assert isinstance(results, list)
        assert all(result.stats.bytes_freed == result.pid for result in results)
