"""Calls in threads: on daemon threads that do not idle, in their owner's context."""

from __future__ import annotations

import concurrent.futures
import contextvars
import gc
import signal
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from tasks_loops import eventually

from probate import (
    ProcessManager,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
    ResourceOrchestrator,
    current_process,
)
from probate.testing import KernelView
from probate_tasks import AsyncTaskManager, TaskResource, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_a_call_returns_what_its_function_does_and_is_forgotten(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Submit gives a native future; whoever has the result finds the call owned by nobody."""
    process = manager.create_process("worker")
    for number in range(100):
        future = tasks.submit(process.pid, divmod, number, 7)

        assert type(future) is concurrent.futures.Future
        assert future.result(5) == divmod(number, 7)
        assert not manager.orchestrator.has_resources(process.pid)

    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.resources_freed == 0


def test_arguments_by_name_reach_the_function(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """All but `pid`, which is the owner's."""
    process = manager.create_process("worker")

    def call(*args: object, **kwargs: object) -> tuple[object, object]:
        return args, kwargs

    future = tasks.submit(process.pid, call, 1, fn=2, name=3)

    assert future.result(5) == ((1,), {"fn": 2, "name": 3})


def test_what_a_function_raises_is_its_futures(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Any exception, SystemExit included, ends the call and no thread."""
    process = manager.create_process("worker")
    for error in (LookupError("boom"), SystemExit(3), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        assert tasks.submit(process.pid, fail).exception(5) is error

    assert not manager.orchestrator.has_resources(process.pid)


def test_a_call_that_ends_within_the_grace_is_counted(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Asked to stop, a function is waited for, and its thread is gone with it."""
    before = KernelView.take().threads
    process = manager.create_process("worker")
    go, started = threading.Event(), threading.Event()

    def work() -> str:
        started.set()
        go.wait(10)
        return "done"

    future = tasks.submit(process.pid, work)
    assert started.wait(5)
    threading.Timer(0.05, go.set).start()
    result = manager.terminate_process(process.pid, grace=5)

    assert result.is_success
    assert result.stats.by_type == {"tasks": 1}
    assert result.stats.duration_seconds < 5
    assert future.result(0) == "done"
    eventually(lambda: KernelView.take().threads <= before)


def test_queued_calls_are_cancelled_and_running_ones_finish(manager: ProcessManager) -> None:
    """What no thread has taken up is never called, not even after the termination."""
    resource = TaskResource(AsyncTaskManager(max_threads=2))
    orchestrator = ResourceOrchestrator().register(resource)
    go = threading.Event()
    started = threading.Semaphore(0)
    calls: list[int] = []

    def work(number: int) -> None:
        calls.append(number)
        started.release()
        go.wait(10)

    futures = [resource.manager.submit(7, work, number) for number in range(50)]
    for _ in range(2):
        assert started.acquire(timeout=5)
    threading.Timer(0.05, go.set).start()

    assert sorted(resource.manager.status(7).values()) == ["pending"] * 48 + ["running"] * 2

    result = orchestrator.cleanup_process(7, grace=5)

    assert result.is_success
    assert result.stats.resources_freed == 50
    assert sorted(calls) == [0, 1]
    assert [future.cancelled() for future in futures] == [False] * 2 + [True] * 48
    # Those in `concurrent.futures.wait` are told, although no thread came to tell them.
    done, pending = concurrent.futures.wait(futures, timeout=5)
    assert (len(done), len(pending)) == (50, 0)


def test_no_thread_idles(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """However much was submitted, the threads are gone when it is done."""
    before = KernelView.take().threads
    process = manager.create_process("burst")
    futures = [tasks.submit(process.pid, int, number) for number in range(1000)]
    concurrent.futures.wait(futures, timeout=10)

    assert [future.result(0) for future in futures] == list(range(1000))
    eventually(lambda: KernelView.take().threads <= before)


def test_one_processs_calls_do_not_wait_for_anothers(manager: ProcessManager) -> None:
    """The limit is each process's own: one that is stuck starves nobody else."""
    tasks = TaskResource(AsyncTaskManager(max_threads=1)).manager
    go = threading.Event()
    stuck = tasks.submit(1, go.wait, 10)
    queued = tasks.submit(1, int)

    assert tasks.submit(2, int, "5").result(5) == 5
    assert tasks.status(1, queued) is TaskStatus.PENDING

    go.set()
    assert stuck.result(5)
    assert queued.result(5) == 0


def test_the_context_is_the_submitters(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """Context variables are copied, the current process among them (PEP 567)."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    with manager.process("job") as process:
        variable.set("submitted")

        def look() -> tuple[int, str]:
            seen = current_process().pid, variable.get()
            variable.set("changed")
            return seen

        assert tasks.submit(look).result(5) == (process.pid, "submitted")
        assert variable.get() == "submitted"


def test_callbacks_are_part_of_the_call(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """A future is done before its callbacks are; what they do is not done behind our back."""
    process = manager.create_process("worker")
    go, called, calling_back = threading.Event(), threading.Event(), threading.Event()
    started = threading.Event()

    def work() -> None:
        started.set()
        go.wait(10)

    def call_back(_: object) -> None:
        calling_back.set()
        called.wait(10)

    future = tasks.submit(process.pid, work)
    future.add_done_callback(call_back)
    assert started.wait(5)
    # Asked to stop before the function has returned.
    requests = tasks.quiesce(process.pid)
    go.set()
    assert calling_back.wait(5)
    stats = manager.orchestrator["tasks"].cleanup(process.pid)

    assert future.done()
    assert [failure.outcome for failure in stats.errors] == ["busy"]
    assert "call_back" in stats.errors[0].message

    called.set()
    concurrent.futures.wait(requests, 5)
    stats = manager.orchestrator["tasks"].cleanup(process.pid)

    assert stats.resources_freed == 1


def test_a_callback_that_exits_ends_no_thread(
    manager: ProcessManager, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit out of a callback is logged; the call is over, and its thread makes the next."""
    tasks = TaskResource(AsyncTaskManager(max_threads=1)).manager
    go = threading.Event()

    def leave(_: object) -> None:
        raise SystemExit(3)

    future = tasks.submit(7, go.wait, 10)
    future.add_done_callback(leave)
    following = tasks.submit(7, int, "5")
    go.set()

    assert future.result(5)
    assert following.result(5) == 5
    assert 7 not in tasks.table
    assert "a callback of call of Event.wait, done" in caplog.text


@pytest.mark.parametrize("has_started", [True, False])
def test_a_result_that_somebody_else_sets_is_left_alone(has_started: bool) -> None:
    """A future is its users' to settle, too; the thread goes on with the next call."""
    tasks = TaskResource(AsyncTaskManager(max_threads=1)).manager
    go = threading.Event()
    called: list[bool] = []
    first: Any = tasks.submit(7, go.wait, 10)
    future: Any = first if has_started else tasks.submit(7, called.append, True)
    eventually(first.running)
    future.set_result(False)
    following = tasks.submit(7, int, "5")
    go.set()

    assert following.result(5) == 5
    assert future.result(0) is False
    assert called == []
    assert 7 not in tasks.table


def test_results_are_not_kept(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """Neither arguments, nor results, nor failures outlive their future; nothing is a cycle."""
    process = manager.create_process("worker")

    class Payload:
        pass

    def fail(payload: Payload) -> None:
        raise LookupError

    gc.disable()
    try:
        for function in (lambda payload: payload, fail):
            payload = Payload()
            reference = weakref.ref(payload)
            future: Any = tasks.submit(process.pid, function, payload)
            concurrent.futures.wait([future], 5)
            del payload, future

            eventually(lambda reference=reference: reference() is None)  # type: ignore[misc]  # bound as a default

            assert reference() is None
    finally:
        gc.enable()


def test_a_stuck_call_does_not_keep_the_interpreter() -> None:
    """Its thread is a daemon: exit is prompt, where an executor's thread would be joined."""
    script = """
import threading
from probate_tasks import TaskResource
started = threading.Event()
def stuck():
    started.set()
    threading.Event().wait()
TaskResource().manager.submit(1, stuck)
started.wait(10)
print("leaving")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True
    )

    assert done.stdout == "leaving\n"
    assert done.stderr == ""


def test_a_limit_refuses_before_anything_is_called(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """Queued calls count; one that has returned makes room at once."""
    process = manager.create_process("limited", limits=ResourceLimits(max_count=1))
    go = threading.Event()
    called: list[bool] = []
    first = tasks.submit(process.pid, go.wait, 10)
    with pytest.raises(ResourceLimitExceeded, match="at most 1"):
        tasks.submit(process.pid, called.append, True)
    go.set()

    assert first.result(5)
    assert tasks.submit(process.pid, int).result(5) == 0
    assert called == []


def test_a_terminated_owner_gets_nothing(manager: ProcessManager, tasks: AsyncTaskManager) -> None:
    """Late registration for a terminated pid leaked for ever: it is refused, and nothing runs."""
    process = manager.create_process("dead")
    manager.terminate_process(process.pid)
    called: list[bool] = []

    with pytest.raises(ProcessTerminatedError):
        tasks.submit(process.pid, called.append, True)

    assert called == []


def test_where_no_thread_can_be_started_nothing_is_owned(
    manager: ProcessManager, tasks: AsyncTaskManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may refuse another thread (EAGAIN, clone(2)): the caller is told."""
    process = manager.create_process("worker")
    start: Callable[[threading.Thread], None] = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("probate-tasks"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            tasks.submit(process.pid, int)

    assert not manager.orchestrator.has_resources(process.pid)
    assert tasks.submit(process.pid, int).result(5) == 0


def test_an_interrupt_while_a_thread_starts(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """A Ctrl-C in `Thread.start` leaves no thread that is nobody's, and that never ends."""

    def interrupt(_signum: int, _frame: object) -> None:
        raise KeyboardInterrupt

    process = manager.create_process("worker")
    interrupted = 0
    before = signal.signal(signal.SIGALRM, interrupt)
    # What falls into the collector's callbacks is printed, and lost.
    gc.disable()
    try:
        for number in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, 20e-6 + number % 40 * 5e-6)
                tasks.submit(process.pid, int)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()

    assert interrupted > 10
    assert tasks.submit(process.pid, int).result(5) == 0
    assert manager.terminate_process(process.pid).is_success
