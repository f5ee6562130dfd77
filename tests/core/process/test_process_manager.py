"""ProcessManager: the one way of a process, its tree, and the account that is kept of it."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from core_threads import at_once, frequent_switches
from plugins_things import (
    FORMS,
    InlineThingResource,
    ThingResource,
    busy,
    managed,
    orchestrate,
    raising,
)

from probate import (
    CleanupResult,
    CleanupStats,
    Outcome,
    Process,
    ProcessManager,
    ProcessNotFoundError,
    ProcessState,
    ProcessTerminatedError,
    ResourceOrchestrator,
    TerminationDeadlockError,
)
from probate.process import ManagerClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sized


def build(orchestrator: ResourceOrchestrator) -> ProcessManager:
    return ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0).build()


def test_a_process_goes_one_way(manager: ProcessManager, plugin: ThingResource) -> None:
    """RUNNING, TERMINATING while its resources are released, TERMINATED; each seen outside."""
    process = manager.create_process("job")
    seen: list[ProcessState] = []
    plugin.give(process.pid, "watcher", lambda: seen.append(process.state))

    assert process.result is None
    assert [(info.name, info.state) for info in manager.list_processes()] == [
        ("job", ProcessState.RUNNING)
    ]

    result = manager.terminate_process(process.pid)

    assert seen == [ProcessState.TERMINATING]
    assert manager.get(process.pid).result is result
    assert process.info().state is ProcessState.TERMINATED
    assert manager.list_processes() == []


@pytest.mark.parametrize("kind", FORMS)
def test_the_second_caller_waits_for_the_same_result(kind: type[ThingResource]) -> None:
    """A second terminate returned false too early: all threads get the one account."""
    plugin = kind()
    with managed(plugin) as manager, frequent_switches():
        for _ in range(50):
            process = manager.create_process("contested")
            things = [plugin.give(process.pid) for _ in range(5)]
            callers: list[Callable[[], object]] = [partial(manager.terminate_process, process.pid)]
            results = at_once([*callers * 3, partial(manager.wait, process.pid, 10)])

            assert all(result is process.result for result in results)
            assert [thing.releases for thing in things] == [1] * 5
            assert process.state is ProcessState.TERMINATED


@pytest.mark.parametrize("pid", [0, -1, 10**9])
def test_an_unknown_pid_is_not_found(manager: ProcessManager, pid: int) -> None:
    """By every way that takes a pid; also a LookupError."""
    for call in (manager.get, manager.wait, manager.terminate_process):
        with pytest.raises(ProcessNotFoundError, match=str(pid)) as caught:
            call(pid)

        assert isinstance(caught.value, LookupError)
    with pytest.raises(ProcessNotFoundError):
        manager.create_process("orphan", parent=pid)


def test_a_bad_name_or_grace_is_refused(manager: ProcessManager) -> None:
    """TypeError and ValueError, and nothing has happened."""
    with pytest.raises(TypeError, match="7"):
        manager.create_process(7)  # type: ignore[arg-type]  # that is the point
    process = manager.create_process("p")
    with pytest.raises(ValueError, match="-1"):
        manager.terminate_process(process.pid, grace=-1)

    assert process.state is ProcessState.RUNNING


def test_wait_gives_up_after_its_timeout(manager: ProcessManager) -> None:
    """TimeoutError; the process runs on; a later wait gets the account."""
    process = manager.create_process("p")
    with pytest.raises(TimeoutError, match=r"has not ended in 0\.02 seconds"):
        manager.wait(process.pid, timeout=0.02)

    assert process.state is ProcessState.RUNNING

    threading.Timer(0.05, process.terminate).start()

    assert manager.wait(process.pid, timeout=10) is process.result


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("hook", ["quiesce", "cleanup"])
@pytest.mark.parametrize("call", ["terminate", "wait"])
def test_a_hook_that_waits_for_its_own_process_is_told(
    kind: type[ThingResource], hook: str, call: str
) -> None:
    """TerminationDeadlockError at once, on whichever thread the hook runs; all is freed."""
    plugin, other = kind("a"), kind("b")
    with managed(plugin, other, deadline=2) as manager:
        process = manager.create_process("p")
        child = manager.create_process("child", parent=process.pid)
        for each in (plugin, other):
            each.give(child.pid)
        caught: list[object] = []

        def wait_for(pid: int) -> None:
            try:
                manager.wait(pid, 1.5) if call == "wait" else manager.terminate_process(pid)
            except Exception as error:
                caught.append(type(error))

        def fault() -> object:
            wait_for(child.pid)
            wait_for(process.pid)
            if hook == "quiesce":
                return ()
            return plugin.table.cleanup(child.pid, lambda thing: thing.release())

        plugin.faults[hook] = fault
        began = time.monotonic()
        result = process.terminate()

        assert time.monotonic() - began < 1
        assert caught == [TerminationDeadlockError] * 2
        assert result.is_success
        assert child.result is not None
        assert child.result.stats.resources_freed == 2


def size_of(manager: ProcessManager, parent: Process) -> int:
    """How much a manager and its orchestrator's admission hold in all their containers."""
    admission = manager._registry.admission
    containers: tuple[Sized, ...] = (
        manager._processes,
        manager._history._remembered,
        parent._children,
        admission._live,
        admission._refused,
    )
    return sum(len(each) for each in containers)


def test_ten_thousand_lives_leave_nothing_behind() -> None:
    """Some of the dead can be asked for by pid; a Process that is held knows its own account."""
    plugin = InlineThingResource()
    with managed(plugin) as manager:
        sizes: list[int] = []
        first = manager.create_process("first")
        first.terminate()
        let_go = manager.create_process("let go").pid
        manager.terminate_process(let_go)
        parent = manager.create_process("parent")
        process = first
        for number in range(10000):
            process = manager.create_process("mayfly", parent=parent.pid)
            plugin.give(process.pid)
            process.terminate()
            if number % 1000 == 999 and number > 4500:
                sizes.append(size_of(manager, parent) + len(plugin.table._by_owner._by_pid))
            plugin.log.clear()

        assert len(set(sizes)) == 1
        assert sizes[0] < 4500
        assert first.result is not None
        assert first.terminate() is first.result
        with pytest.raises(ProcessNotFoundError, match="long gone"):
            manager.get(let_go)
        assert manager.get(process.pid).result is process.result
        assert manager.totals.resources_freed == 10000


def test_totals_are_the_sum(manager: ProcessManager, plugin: ThingResource) -> None:
    """Freed, bytes, errors and kinds; whoever ended them, from however many threads."""
    pids = [manager.create_process(str(number)).pid for number in range(40)]
    for pid in pids:
        plugin.give(pid, nbytes=10)
        plugin.give(pid, "bad", raising(OSError("no")))
    results = at_once([partial(manager.terminate_process, pid) for pid in pids])
    accounts = [result.stats for result in results if isinstance(result, CleanupResult)]
    total = CleanupStats.merged(accounts)

    assert manager.totals.model_dump(exclude={"duration_seconds"}) == total.model_dump(
        exclude={"duration_seconds"}
    )
    assert manager.totals.resources_freed == 40
    assert manager.totals.bytes_freed == 400
    assert manager.totals.errors_encountered == 40


def test_close_ends_all_and_refuses_new_ones(plugin: ThingResource) -> None:
    """Newest first; idempotent; a closed manager creates nothing."""
    with managed(plugin) as manager:
        for name in ("one", "two", "three"):
            plugin.give(manager.create_process(name).pid, name)

    assert [line for line in plugin.log if line.startswith("release")] == [
        "release three", "release two", "release one",
    ]  # fmt: skip

    manager.close()

    with pytest.raises(ManagerClosedError, match="creates no more"):
        manager.create_process("late")


def test_what_fails_at_an_end_is_logged_and_keeps_nobody_else_from_being_told(
    manager: ProcessManager, caplog: pytest.LogCaptureFixture
) -> None:
    """On the one logger, with the process and the traceback."""
    process, told = manager.create_process("job"), []
    process.on_terminated(lambda: 1 / 0)
    process.on_terminated(lambda: told.append(process.state))
    process.terminate()

    [record] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.name == "probate"
    assert record.getMessage().endswith("'job' terminated> failed")
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert told == [ProcessState.TERMINATED]


def test_one_manager_at_a_time(plugin: ThingResource) -> None:
    """A second one on the same orchestrator is refused; the next one continues the pids."""
    orchestrator = orchestrate(plugin)
    first = build(orchestrator)
    pids = {first.create_process("p").pid for _ in range(3)}
    with pytest.raises(RuntimeError, match="another process manager"):
        build(orchestrator)
    first.close()
    with build(orchestrator) as second:
        new = second.create_process("q").pid

        assert new > max(pids)
        with pytest.raises(ProcessTerminatedError):
            plugin.give(min(pids))
        with pytest.raises(ProcessNotFoundError):
            plugin.give(new + 1)


def test_a_manager_that_nobody_closed_makes_room_when_it_is_gone(plugin: ThingResource) -> None:
    """Collected, it does not hold the orchestrator for ever; its pids are not issued again."""
    import gc

    orchestrator = orchestrate(plugin)
    forgotten = build(orchestrator)
    pid = forgotten.create_process("p").pid
    forgotten.terminate_process(pid)
    del forgotten
    gc.collect()

    assert build(orchestrator).create_process("q").pid > pid


def test_plain_pids_in_use_do_not_fall_to_a_manager(plugin: ThingResource) -> None:
    """What was owned by plain keys before is no process's of the manager."""
    orchestrator = orchestrate(plugin)
    plugin.give(1)
    plugin.give(41)
    with build(orchestrator) as manager:
        pid = manager.create_process("p").pid

        assert pid > 41
        assert not orchestrator.has_resources(pid)
        assert orchestrator.cleanup_process(41).stats.resources_freed == 1


def test_what_stayed_busy_is_tried_again_at_close(plugin: ThingResource) -> None:
    """What was busy at the termination and is not any more is released, at the latest, then."""
    manager = managed(plugin)
    process = manager.create_process("p")
    stuck = plugin.give(process.pid, "stuck", lambda: Outcome.BUSY, nbytes=5)

    assert not process.terminate().is_success

    stuck.behave = None
    manager.close()

    assert process.pid not in plugin.table
    assert manager.totals.bytes_freed == 5


def test_what_stayed_busy_and_hangs_at_close_is_left_at_the_deadline(plugin: ThingResource) -> None:
    """close() keeps to the deadline that the manager was built with."""
    manager = managed(plugin, deadline=0.3)
    process = manager.create_process("p")
    over = threading.Event()
    plugin.give(process.pid, "stuck", lambda: Outcome.BUSY)
    process.terminate()
    plugin.faults["cleanup"] = lambda: over.wait(2.5)
    began = time.monotonic()
    manager.close()
    took = time.monotonic() - began
    over.set()

    assert took < 2


def test_an_interrupt_at_close_leaves_the_orchestrator_free(plugin: ThingResource) -> None:
    """A KeyboardInterrupt out of the last cleanup is raised; the manager is closed."""
    orchestrator = orchestrate(plugin)
    manager = build(orchestrator)
    process = manager.create_process("p")
    stuck = plugin.give(process.pid, "stuck", lambda: Outcome.BUSY)
    process.terminate()
    stuck.behave = raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        manager.close()

    assert build(orchestrator).list_processes() == []


def test_an_error_that_is_retried_is_counted_once(plugin: ThingResource) -> None:
    """BUSY through termination and retries is one error in one result."""
    with managed(plugin) as manager:
        process = manager.create_process("p")
        plugin.give(process.pid, "slow", busy(4))
        result = process.terminate()

        assert len(result.errors) == result.stats.errors_encountered == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda manager, _: manager.create_process("x", limits=3),
        lambda manager, _: manager.process("x", limits={"max_count": 1}).__enter__(),
        lambda manager, _: manager.builder().with_limits(3),
        lambda manager, _: manager.builder().with_settings(5),
        lambda _, process: process.on_terminated(5),
        lambda _, process: process.transfer(object(), to=5),
    ],
    ids=["create", "block", "builder", "settings", "callback", "transfer"],
)
def test_what_is_of_another_type_is_refused_in_plain_words(
    manager: ProcessManager, call: Callable[[ProcessManager, Process], object]
) -> None:
    """It was an AttributeError from within, or accepted; nothing has been made."""
    process = manager.create_process("process")

    with pytest.raises(TypeError, match=r"expected .*, got "):
        call(manager, process)
    assert [each.pid for each in manager.list_processes()] == [process.pid]


@pytest.mark.parametrize("seconds", [10**400, 1e308, float("inf")], ids=["10**400", "1e308", "inf"])
def test_times_that_no_clock_has_are_for_ever(plugin: ThingResource, seconds: float) -> None:
    """Nothing could be ended any more, nor be waited for."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrate(plugin))
    with builder.with_deadline(seconds).with_grace(0).build() as manager:
        process = manager.create_process("patient")
        plugin.give(process.pid, "thing")
        ending = threading.Timer(0.05, process.terminate)
        ending.start()

        assert manager.wait(process.pid, seconds).stats.resources_freed == 1
        ending.join()


@pytest.mark.parametrize("deadline", [None, 10])
def test_a_release_that_awaits_the_end_of_its_own_process_is_told(deadline: float | None) -> None:
    """A coroutine function runs on the loop that terminates it, and would wait there for ever."""
    caught: list[object] = []

    async def main() -> float:
        orchestrator = ResourceOrchestrator().discover(only=["callbacks"])
        builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
        async with builder.with_deadline(deadline).with_grace(0).build() as manager:
            process = manager.create_process("impatient")

            async def release() -> None:
                for end in (process.terminate_async, partial(manager.wait_async, process)):
                    try:
                        await end()
                    except TerminationDeadlockError as error:
                        caught.append(type(error))

            process.callback(release)
            began = time.monotonic()
            assert (await process.terminate_async()).errors == ()
            return time.monotonic() - began

    assert asyncio.run(asyncio.wait_for(main(), 20)) < 5
    assert caught == [TerminationDeadlockError] * 2
