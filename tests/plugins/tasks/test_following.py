"""Work behind a task: what it awaits is followed before it is cancelled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import uvloop
from tasks_loops import LoopThread, eventually, until

from probate import CleanupResult, Outcome, ProcessManager
from probate_tasks import TaskStatus

if TYPE_CHECKING:
    from probate_tasks import AsyncTaskManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

Function = Callable[[], object]


class Gate:
    """A function that blocks its thread until it is let through."""

    def __init__(self) -> None:
        self.entered, self.opened, self.is_over = threading.Event(), threading.Event(), False

    def pass_through(self) -> None:
        self.entered.set()
        self.opened.wait(10)
        self.is_over = True


async def to_thread(function: Function) -> None:
    await asyncio.to_thread(function)


async def in_executor(function: Function) -> None:
    await asyncio.get_running_loop().run_in_executor(None, function)


async def wrapped(function: Function) -> None:
    executor = ThreadPoolExecutor(1)
    future = executor.submit(function)
    executor.shutdown(wait=False)
    await asyncio.wrap_future(future)


async def shielded(function: Function) -> None:
    await asyncio.shield(asyncio.to_thread(function))


async def gathered(function: Function) -> None:
    await asyncio.gather(asyncio.sleep(3600), asyncio.to_thread(function))


async def grouped(function: Function) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(function))


async def beside_a_group(function: Function) -> None:
    async with contextlib.AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(asyncio.to_thread(function))
        del group
        await asyncio.sleep(3600)


@contextlib.asynccontextmanager
async def background(function: Function) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(asyncio.to_thread, function)
        yield


async def within_a_context(function: Function) -> None:
    async with background(function):
        await asyncio.sleep(3600)


async def waited_for(function: Function) -> None:
    await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(function))])


async def with_a_timeout(function: Function) -> None:
    await asyncio.wait_for(asyncio.to_thread(function), 3600)


async def as_completed(function: Function) -> None:
    for each in asyncio.as_completed([asyncio.to_thread(function)]):
        await each


async def by_anyio(function: Function) -> None:
    await anyio.to_thread.run_sync(function)


async def by_anyio_in_a_group(function: Function) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, function)


async def abandoned_by_anyio(function: Function) -> None:
    await anyio.to_thread.run_sync(function, abandon_on_cancel=True)


class BackgroundTasks:
    """As Starlette's: functions that run in worker threads, one after another, at the end."""

    def __init__(self, *functions: Function) -> None:
        self.functions = functions

    async def __call__(self) -> None:
        for function in self.functions:
            await anyio.to_thread.run_sync(function)


async def of_a_response(function: Function) -> None:
    await BackgroundTasks(function)()


class Request:
    """As aiohttp's: an object that awaits a coroutine of its own."""

    def __init__(self, function: Function) -> None:
        self._coroutine = asyncio.to_thread(function)

    def __await__(self) -> Any:
        return self._coroutine.__await__()


async def by_an_object(function: Function) -> None:
    await Request(function)


def set_result(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


async def by_a_thread_of_ones_own(function: Function) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def work(done: asyncio.Future[None]) -> None:
        function()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(set_result, done)

    threading.Thread(target=work, args=(done,)).start()
    await done


class Worker(threading.Thread):
    """A thread that keeps the future that it is to set."""

    def __init__(self, function: Function, done: asyncio.Future[None]) -> None:
        super().__init__()
        self.function, self.done = function, done

    def run(self) -> None:
        self.function()
        with contextlib.suppress(RuntimeError):
            self.done.get_loop().call_soon_threadsafe(set_result, self.done)


async def by_a_worker_object(function: Function) -> None:
    done = asyncio.get_running_loop().create_future()
    Worker(function, done).start()
    await done


async def chained_by_hand(function: Function) -> None:
    """As Tornado's run_in_executor: by callbacks of its own."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    executor = ThreadPoolExecutor(1)

    def copy(_: object) -> None:
        set_result(done)

    call = executor.submit(function)
    call.add_done_callback(lambda future: loop.call_soon_threadsafe(copy, future))
    executor.shutdown(wait=False)
    await done


WAYS = [
    to_thread,
    in_executor,
    wrapped,
    shielded,
    gathered,
    grouped,
    beside_a_group,
    within_a_context,
    waited_for,
    with_a_timeout,
    as_completed,
    by_anyio,
    by_anyio_in_a_group,
    abandoned_by_anyio,
    of_a_response,
    by_an_object,
    by_a_thread_of_ones_own,
    by_a_worker_object,
    chained_by_hand,
]

a_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def run(main: Coroutine[Any, Any, None], factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


@pytest.fixture(autouse=True, scope="module")
def warmed_up() -> None:
    """Uvloop's first fork handlers and pipes are for good."""
    run(asyncio.sleep(0), uvloop.new_event_loop)


async def started(gate: Gate) -> None:
    """Let the loop run until the function is in its thread, and whoever awaits it asleep."""
    await until(gate.entered.is_set)


@pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
@a_way
def test_work_behind_a_task_is_waited_for_within_the_grace(
    manager: ProcessManager,
    tasks: AsyncTaskManager,
    way: Callable[[Function], Any],
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Freed is a task when nothing of its work goes on any more (cpython#107505, anyio#575)."""

    async def main() -> None:
        gate = Gate()
        process = manager.create_process("worker")
        task = tasks.spawn(process.pid, way(gate.pass_through))
        await started(gate)
        asyncio.get_running_loop().call_later(0.05, gate.opened.set)
        result = await process.terminate_async(grace=5)

        assert gate.is_over
        assert result.is_success
        assert result.stats.resources_freed == 1
        assert task.done()

    run(main(), factory)


@a_way
def test_work_behind_a_task_that_goes_on_is_busy_with_where_it_stands(
    manager: ProcessManager, tasks: AsyncTaskManager, way: Callable[[Function], Any]
) -> None:
    """Never "freed" while it runs: BUSY, its stack, a way out; owned until it ends (kopf#628)."""

    async def main() -> None:
        gate = Gate()
        process = manager.create_process("worker")
        task = tasks.spawn(process.pid, way(gate.pass_through))
        await started(gate)
        result = await process.terminate_async(grace=0.05)

        assert not gate.is_over
        assert [error.outcome for error in result.errors] == [Outcome.BUSY]
        assert result.stats.resources_freed == 0
        message = result.errors[0].message
        if task.done():
            assert "what it awaited goes on" in message
            assert "own it too" in message or "allow more grace" in message
            assert tasks.status(process.pid, task) is TaskStatus.RUNNING
        assert "opened.wait(10)" in message or "await" in message

        gate.opened.set()
        await asyncio.wait([task])
        await until(lambda: not manager.orchestrator.has_resources(process.pid))

        assert gate.is_over

    run(main(), asyncio.new_event_loop)


@a_way
def test_work_behind_a_task_is_followed_from_a_foreign_thread(
    manager: ProcessManager, tasks: AsyncTaskManager, way: Callable[[Function], Any]
) -> None:
    """Its own loop looks at what the task awaits, whoever ends the owner."""
    gate = Gate()
    process = manager.create_process("worker")
    with LoopThread() as thread:
        root = thread.call(asyncio.ensure_future, asyncio.sleep(3600))
        task = thread.call(tasks.spawn, process.pid, way(gate.pass_through))
        assert gate.entered.wait(5)
        busy = manager.orchestrator.cleanup_process(process.pid, grace=0.05)

        assert [error.outcome for error in busy.errors] == [Outcome.BUSY]

        gate.opened.set()
        eventually(lambda: task.done() and not manager.orchestrator.has_resources(process.pid))
        thread.call(root.cancel)
        thread.run(thread.loop.shutdown_default_executor())
    assert gate.is_over


def test_what_is_shielded_is_left_alone_and_reported(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Shield is honoured: it is waited for, and BUSY; whoever wants it cancelled owns it too."""

    async def main() -> None:
        process, other = manager.create_process("shielding"), manager.create_process("other")
        release = asyncio.Event()
        shielded = asyncio.ensure_future(release.wait())

        async def work() -> None:
            await asyncio.shield(shielded)

        tasks.spawn(process.pid, work())
        await asyncio.sleep(0)
        result = await process.terminate_async(grace=0.05)

        assert [error.outcome for error in result.errors] == [Outcome.BUSY]
        assert "own it too" in result.errors[0].message
        assert "in wait" in result.errors[0].message
        assert not shielded.done()

        release.set()
        assert await shielded
        await asyncio.sleep(0)
        assert not manager.orchestrator.has_resources(process.pid)

        tasks.spawn(other.pid, asyncio.sleep(3600))
        assert (await other.terminate_async(grace=5)).is_success

    asyncio.run(main())


def test_what_has_an_owner_is_its_owners(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """A task that only waits for what another process owns is freed without it."""

    async def main() -> None:
        process, other = manager.create_process("waiting"), manager.create_process("working")
        gate = Gate()
        theirs = tasks.spawn(other.pid, asyncio.sleep(3600))
        call = tasks.submit(other.pid, gate.pass_through)

        async def wait() -> None:
            await asyncio.wait([theirs, asyncio.ensure_future(asyncio.shield(theirs))])

        async def wait_for_call() -> None:
            await asyncio.shield(asyncio.wrap_future(call))

        tasks.spawn(process.pid, wait())
        tasks.spawn(process.pid, wait_for_call())
        await started(gate)
        await asyncio.sleep(0)
        result = await process.terminate_async(grace=0.2)

        assert [str(error) for error in result.errors] == []
        assert not theirs.done()
        assert call.running()

        gate.opened.set()
        assert (await other.terminate_async(grace=5)).is_success

    asyncio.run(main())


def test_who_waits_for_a_process_has_nothing_behind_it(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Neither a child, which ends with its owner after the grace, nor another's is waited for."""

    async def main() -> CleanupResult:
        owner, other = manager.create_process("owner"), manager.create_process("other")
        child = manager.create_process("child", parent=owner)
        waiters = [tasks.spawn(owner.pid, manager.wait_async(each)) for each in (child, other)]
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            result = await owner.terminate_async(grace=300)

        assert all(waiter.cancelled() for waiter in waiters)
        return result

    assert asyncio.run(main()).stats.by_type == {"tasks": 2}


def test_what_another_task_has_started_is_not_behind_one_that_knows_it(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """A group belongs to the task that entered it, not to whoever was handed it."""

    async def main() -> None:
        process = manager.create_process("knowing")

        async def know(group: asyncio.TaskGroup) -> None:
            async with asyncio.timeout(3600):
                await asyncio.sleep(3600)
            group.create_task(asyncio.sleep(0))

        async with asyncio.TaskGroup() as group:
            child = group.create_task(asyncio.sleep(3600))
            tasks.spawn(process.pid, know(group))
            await asyncio.sleep(0)
            result = await process.terminate_async(grace=0.2)
            child.cancel()

        assert result.is_success
        assert result.stats.resources_freed == 1

    asyncio.run(main())


def test_a_task_in_a_portals_loop_is_followed(manager: ProcessManager) -> None:
    """A portal's future can be cancelled while its task goes on: it is the task that counts."""
    process = manager.create_process("worker")
    gate = Gate()
    log: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(gate.pass_through)
            log.append("left")

    with anyio.from_thread.start_blocking_portal() as portal:
        future = portal.start_task_soon(work)
        portal.call(anyio.sleep, 0)
        process.adopt(future)
        threading.Timer(0.05, gate.opened.set).start()
        result = process.terminate(grace=5)

        assert log == ["left"]
        assert result.is_success
        assert result.stats.resources_freed == 1


def test_a_task_that_awaits_a_portals_task_is_not_over_before_that(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """What has its end in another loop is waited for there."""

    async def main() -> None:
        gate = Gate()
        process = manager.create_process("worker")

        async def leave() -> None:
            try:
                await anyio.sleep(3600)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(gate.pass_through)

        async def wait(portal: anyio.from_thread.BlockingPortal) -> None:
            await asyncio.wrap_future(portal.start_task_soon(leave))

        with anyio.from_thread.start_blocking_portal() as portal:
            tasks.spawn(process.pid, wait(portal))
            await asyncio.sleep(0)
            portal.call(anyio.sleep, 0)
            result = await process.terminate_async(grace=0.05)

            assert [error.outcome for error in result.errors] == [Outcome.BUSY]
            assert "own it too" in result.errors[0].message

            gate.opened.set()
            await until(lambda: not manager.orchestrator.has_resources(process.pid))

    asyncio.run(main())


@pytest.mark.parametrize("is_by_hand", [True, False])
def test_a_gather_that_failed_is_owned_until_its_members_have_ended(
    manager: ProcessManager, is_by_hand: bool
) -> None:
    """It is done when the first member fails; the others are cancelled, and waited for."""

    async def main() -> None:
        process = manager.create_process("gathering")
        member = asyncio.ensure_future(asyncio.sleep(3600))

        async def fail() -> None:
            raise ValueError("first")

        gathering = asyncio.gather(member, fail())
        process.adopt(gathering)
        with pytest.raises(ValueError, match="first"):
            await gathering

        assert manager.orchestrator.has_resources(process.pid)

        if is_by_hand:
            member.cancel()
            await asyncio.wait([member])
        result: CleanupResult = await process.terminate_async(grace=5)

        assert result.is_success
        assert result.stats.resources_freed == (0 if is_by_hand else 1)
        assert member.cancelled()

    asyncio.run(main())


def test_a_task_that_is_cancelled_by_hand_is_owned_while_its_thread_works(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Cancel and close follow what it awaits, as the end of its owner does."""

    async def main() -> None:
        process = manager.create_process("worker")
        gate = Gate()
        task = tasks.spawn(process.pid, to_thread(gate.pass_through))
        await started(gate)
        tasks.cancel(process.pid, task)
        with contextlib.suppress(asyncio.CancelledError):
            await task

        assert tasks.status(process.pid) == {task: TaskStatus.RUNNING}

        gate.opened.set()
        await until(lambda: not manager.orchestrator.has_resources(process.pid))

    asyncio.run(main())


def test_a_thread_of_a_closed_loop_is_busy(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """The coroutine of a closed loop is closed; the thread that it awaited is not thereby over."""
    process = manager.create_process("worker")
    gate = Gate()
    thread = LoopThread()
    executor = concurrent.futures.ThreadPoolExecutor(1)

    async def work() -> None:
        await asyncio.get_running_loop().run_in_executor(executor, gate.pass_through)

    with thread:
        thread.call(tasks.spawn, process.pid, work())
        assert gate.entered.wait(5)
    result = process.terminate(grace=0.05)

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "opened.wait(10)" in result.errors[0].message

    gate.opened.set()
    executor.shutdown()
    eventually(lambda: not manager.orchestrator.has_resources(process.pid))


def test_a_worker_of_anyio_that_terminates_its_own_process_gets_the_account(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """It does not wait for itself, and the account says that it goes on."""

    async def main() -> None:
        process = manager.create_process("suicidal")
        results: list[CleanupResult] = []

        def end() -> None:
            results.append(process.terminate(grace=30))

        task = tasks.spawn(process.pid, anyio.to_thread.run_sync(end))
        async with asyncio.timeout(10):
            await asyncio.wait([task])
            await until(lambda: results)

        assert "terminates its own process" in results[0].errors[0].message

    asyncio.run(main())
