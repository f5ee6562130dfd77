"""Calls on the event loop that a thing belongs to: on it, or with a word why not."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
from typing import Any

import pytest
from tasks_loops import LoopThread, eventually

from probate import BusyResourceError, ReleaseError
from probate.system import call_on_loop, running_loop
from probate.system.loops import giving_up_after, holding_up, run_on_loop


async def where() -> tuple[asyncio.AbstractEventLoop, int]:
    return asyncio.get_running_loop(), threading.get_ident()


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


# -- run_on_loop -------------------------------------------------------------------


def test_it_runs_there_and_what_comes_of_it_comes_back() -> None:
    """On the loop's own thread: a result, or whatever was raised."""
    with LoopThread() as thread:
        assert run_on_loop(where, thread.loop) == (thread.loop, thread.ident)
        with pytest.raises(ZeroDivisionError):
            run_on_loop(lambda: fail(ZeroDivisionError()), thread.loop)


def test_any_awaitable_will_do() -> None:
    """A future of that loop, or an object with `__await__`."""

    class Ready:
        def __await__(self) -> Any:
            return asyncio.sleep(0, "ready").__await__()

    with LoopThread() as thread:

        def make() -> asyncio.Future[str]:
            future = thread.loop.create_future()
            thread.loop.call_soon(future.set_result, "future")
            return future

        assert run_on_loop(Ready, thread.loop) == "ready"
        assert run_on_loop(make, thread.loop) == "future"
        assert run_on_loop(Ready, None) == "ready"


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_without_a_loop_it_gets_one_that_is_closed_afterwards(error: type[BaseException]) -> None:
    """On a thread of its own, also if a loop runs here; whatever it raises comes back."""

    async def from_a_loop() -> tuple[asyncio.AbstractEventLoop, int]:
        found: tuple[asyncio.AbstractEventLoop, int] = run_on_loop(where, None)
        assert found[0] is not running_loop()
        return found

    for loop, ident in (run_on_loop(where, None), asyncio.run(from_a_loop())):
        assert loop.is_closed()
        assert ident != threading.get_ident()
    with pytest.raises(error):
        run_on_loop(lambda: fail(error()), None)


def never() -> Any:
    raise AssertionError("made, although it cannot run")


def test_where_it_cannot_run_nothing_is_made() -> None:
    """Closed is for good; a loop that stands still, or waits for this very call, may yet run."""
    loop = asyncio.new_event_loop()
    with pytest.raises(BusyResourceError, match="does not run"):
        run_on_loop(never, loop)
    loop.close()
    with pytest.raises(ReleaseError, match="closed") as closed:
        run_on_loop(never, loop)
    assert type(closed.value) is ReleaseError

    with LoopThread() as thread:
        with (
            pytest.raises(BusyResourceError, match="the event loop that waits for it"),
            holding_up(thread.loop),
        ):
            run_on_loop(never, thread.loop)
        with pytest.raises(BusyResourceError, match="give_back_async"):
            thread.call(run_on_loop, never, thread.loop)
        assert run_on_loop(where, thread.loop)[0] is thread.loop


def test_a_loop_that_is_closed_just_before_leaves_no_coroutine_unawaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It looked as if it ran: the error is that of a closed loop."""
    loop = asyncio.new_event_loop()
    loop.close()
    monkeypatch.setattr(loop, "is_closed", iter([False]).__next__)
    monkeypatch.setattr(loop, "is_running", lambda: True)
    monkeypatch.setattr(loop, "call_soon_threadsafe", raise_closed)

    with pytest.raises(ReleaseError, match="closed before it could run"):
        run_on_loop(where, loop)


def raise_closed(*_: object, **__: object) -> None:
    raise RuntimeError("Event loop is closed")


def test_a_loop_that_is_stopped_meanwhile_is_not_waited_for() -> None:
    """Nobody waits for what may never go on; when the loop runs again, it is cancelled."""
    loop = asyncio.new_event_loop()
    begun = threading.Event()
    ends: list[str] = []

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    runner = threading.Thread(target=loop.run_forever)
    runner.start()
    eventually(loop.is_running)

    def stop() -> None:
        begun.wait(10)
        loop.call_soon_threadsafe(loop.stop)

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(ReleaseError, match="stopped before its coroutine had ended"):
        run_on_loop(hang, loop)
    runner.join(10)
    stopper.join(10)
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()

    assert ends == ["cancelled"]


@pytest.mark.parametrize("has_loop", [False, True])
def test_what_takes_too_long_is_cancelled_in_time(has_loop: bool) -> None:
    """It may still clean up; what is raised then is the timeout."""
    ends: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ends.append("cleaned up")

    with (
        LoopThread() as thread,
        giving_up_after(1),
        pytest.raises(ReleaseError, match="and was cancelled"),
    ):
        run_on_loop(hang, thread.loop if has_loop else None)

    assert ends == ["cleaned up"]


@pytest.mark.parametrize("has_loop", [False, True])
def test_what_defies_its_cancellation_is_left_behind(has_loop: bool) -> None:
    """Whoever waits goes on all the same."""
    over, ended = threading.Event(), threading.Event()

    async def defy() -> None:
        while not over.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        ended.set()

    with LoopThread() as thread:
        with pytest.raises(ReleaseError, match="nor when it was"), giving_up_after(0.2):
            run_on_loop(defy, thread.loop if has_loop else None)
        over.set()

        assert ended.wait(10)


@pytest.mark.parametrize("has_loop", [False, True])
def test_a_timeout_of_its_own_is_its_own(has_loop: bool) -> None:
    """A coroutine that raises TimeoutError in time is not taken for one that was cancelled."""
    with LoopThread() as thread, giving_up_after(30), pytest.raises(TimeoutError, match="its own"):
        run_on_loop(lambda: fail(TimeoutError("its own")), thread.loop if has_loop else None)


def test_a_loop_is_held_up_within_the_block_only() -> None:
    """Also by a nested end that holds up none; and no more after an error."""

    def fail_within(loop: asyncio.AbstractEventLoop) -> None:
        with holding_up(loop), holding_up(None):
            with pytest.raises(BusyResourceError):
                run_on_loop(where, loop)
            raise ZeroDivisionError

    with LoopThread() as thread:
        with pytest.raises(ZeroDivisionError):
            fail_within(thread.loop)

        assert run_on_loop(where, thread.loop)[0] is thread.loop


# -- call_on_loop ------------------------------------------------------------------


def test_what_a_function_schedules_has_run_when_its_future_is_done() -> None:
    """The function runs on the loop's thread, and the future is done a turn later."""
    calls: list[tuple[str, int | None]] = []

    def note(what: str) -> None:
        calls.append((what, threading.get_ident()))

    with LoopThread() as thread:

        def function() -> None:
            note("called")
            thread.loop.call_soon(note, "scheduled")

        future = call_on_loop(thread.loop, function)

        assert future is not None
        assert future.result(10) is None
        assert calls == [("called", thread.ident), ("scheduled", thread.ident)]


def test_a_function_that_raises_is_done_all_the_same() -> None:
    """Nobody is left waiting; the loop's exception handler has the error."""
    errors: list[object] = []
    with LoopThread() as thread:
        thread.loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
        future = call_on_loop(thread.loop, lambda: 1 / 0)

        assert future is not None
        assert future.result(10) is None
    assert [type(error) for error in errors] == [ZeroDivisionError]


@pytest.mark.parametrize("state", ["idle", "closed", "closed meanwhile"])
def test_a_loop_that_does_not_run_is_given_nothing(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None, and the function is never called, not even when the loop runs later."""
    calls: list[None] = []
    loop = asyncio.new_event_loop()
    if state == "closed":
        loop.close()
    with monkeypatch.context() as patch:
        if state == "closed meanwhile":
            patch.setattr(loop, "is_running", lambda: True)
            patch.setattr(loop, "call_soon_threadsafe", raise_closed)

        assert call_on_loop(loop, lambda: calls.append(None)) is None
    if state != "closed":
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert calls == []


def test_the_running_loop_is_told_where_one_runs() -> None:
    """None on a thread without one."""

    async def ask() -> tuple[object, object]:
        return running_loop(), await asyncio.to_thread(running_loop)

    with LoopThread() as thread:
        assert thread.run(ask()) == (thread.loop, None)
    assert running_loop() is None


def test_what_is_held_up_is_dropped_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coroutine that nobody ends is collected in whichever context, and said so on stderr."""
    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    left = [holding_up(None)]
    contextvars.copy_context().run(left[0].__enter__)
    left.clear()
    gc.collect()

    assert said == []
