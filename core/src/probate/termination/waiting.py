"""Waiting on a thread and on an event loop, for steps that are written once.

A termination is a generator that yields each `Wait` it needs and goes on when that is over;
`run` waits on the calling thread, `run_async` awaits on its loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
import weakref
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar, final

from probate.system.callthread import CallThread
from probate.system.interrupts import Elsewhere
from probate.system.loops import holding_up, running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from probate.hookspecs import AnyFuture

T = TypeVar("T")

#: Seconds of one turn of an event loop in which steps are begun.
_TURN: Final = 0.002


@final
class Wait(NamedTuple):
    """Asks to wait until all `futures` are done, for at most `timeout` seconds."""

    futures: Sequence[AnyFuture]
    timeout: float
    #: Whether it waits for users to stop, who may need the very loop that waits.
    is_grace: bool = False


@final
class RunResult(NamedTuple, Generic[T]):
    """Carries what steps returned, and the interrupt that came meanwhile, if one did."""

    value: T
    interrupt: BaseException | None

    def unwrap(self, other: BaseException | None = None) -> T:
        """Return the value; raise the interrupt instead, or else `other`, if there is one."""
        if (interrupt := self.interrupt or other) is not None:
            raise interrupt
        return self.value


def run(steps: Generator[Wait, None, T]) -> RunResult[T]:
    """Run `steps` on this thread.

    An exception that falls into a wait for users ends it, and nothing else. On the thread of a
    running event loop such waits are skipped: users may need this loop.
    """
    futures: Sequence[AnyFuture] = ()
    interrupt: BaseException | None = None
    loop = running_loop()
    while True:
        try:
            with holding_up(loop):
                futures, timeout, is_grace = next(steps)
        except StopIteration as stop:
            # The traceback of an interrupt keeps this frame, which must not keep the futures.
            futures = ()
            return RunResult(stop.value, interrupt)
        if is_grace and (loop is not None or interrupt is not None):
            continue
        # A lock of C: what falls into a wait for Python's Condition leaves that half taken.
        waiting = threading.Lock()
        waiting.acquire()
        fired: list[None] = []

        def fire(fired: list[None] = fired, waiting: threading.Lock = waiting) -> None:
            fired.append(None)
            waiting.release()

        when_all_done(futures, fire)
        over = time.monotonic() + timeout
        while (left := over - time.monotonic()) > 0:
            try:
                if waiting.acquire(timeout=min(left, threading.TIMEOUT_MAX)):
                    break
            except BaseException as error:
                interrupt = interrupt or error
                # Perhaps just after it had been acquired.
                if is_grace or fired:
                    break


def run_through(
    steps: Generator[Wait, None, T], again: Callable[[], Generator[Wait, None, T]]
) -> RunResult[T]:
    """Run `steps` as `run` does, whatever exception falls in from outside.

    Where one falls between two steps, what `again` makes is run to its end on another thread,
    where none can fall in, and this one is kept as the interrupt: the one rule for all of them.
    """
    try:
        # In a context of its own, where what is set is gone whatever falls in, and when.
        return copy_context().run(run, steps)
    except BaseException as error:
        ended = Elsewhere(lambda: run(again())).result()
        return RunResult(ended.value, error)


async def run_async(steps: Generator[Wait, None, T]) -> RunResult[T]:
    """Run `steps` on this event loop. A cancellation ends waits for users, and nothing else."""
    loop = asyncio.get_running_loop()
    futures: Sequence[AnyFuture] = ()
    interrupt: BaseException | None = None
    while True:
        try:
            while not _has_turn(loop):  # noqa: ASYNC110  each of these is a turn of the loop
                await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            interrupt = error
        try:
            futures, timeout, is_grace = next(steps)
        except StopIteration as stop:
            futures = ()  # as in `run`
            return RunResult(stop.value, interrupt)
        if is_grace and interrupt is not None:
            continue
        over = asyncio.Event()
        when_all_done(futures, partial(wake, loop, over))
        if over.is_set():
            # The loop gets a turn all the same: what is done may have woken somebody.
            over.clear()
            loop.call_soon(over.set)
        timer = loop.call_at(loop.time() + timeout, over.set)
        try:
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError as error:
                    interrupt = error
                    if is_grace:
                        break
        finally:
            timer.cancel()


#: Since when steps have been run in this turn of a loop, by loop.
_turns: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, float]] = (
    weakref.WeakKeyDictionary()
)


def _has_turn(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether there is time left for steps in this turn of a loop, so that others get theirs.

    Many terminations that are begun at once would hold it up with the sum of what each takes.
    """
    now = time.perf_counter()
    began = _turns.get(loop)
    if began is None:
        _turns[loop] = now
        loop.call_soon(_turns.pop, loop, None)
        return True
    return now - began < _TURN


async def run_elsewhere(function: Callable[[], object], fallen: BaseException) -> None:
    """Make a call on a thread of its own, and await its end, whatever falls in here.

    `fallen` is what has fallen in already: a coroutine that is thrown away awaits nothing more.
    """
    thread = CallThread("probate-termination")
    try:
        future = thread.begin(function)
    except RuntimeError:
        # No more threads can be started: better to hold the loop up than to leave it undone.
        function()
        return
    if isinstance(fallen, GeneratorExit):
        thread.abandon()
        return
    while not future.done():
        # A cancellation is not what it waits for.
        with contextlib.suppress(BaseException):
            await asyncio.wait([asyncio.wrap_future(future)])
    thread.close()


def wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """Set an event of `loop`, from any thread."""
    if running_loop() is loop:
        event.set()
    # The loop may be gone by the time that a straggler finishes.
    elif not loop.is_closed():
        loop.call_soon_threadsafe(event.set)


def when_all_done(futures: Sequence[AnyFuture], callback: Callable[[], object]) -> None:
    """Call `callback` once, on any thread, when the last of `futures` is done.

    Futures of a loop that does not run cannot get done, and are not waited for.
    """
    if len(futures) == 1 and isinstance(only := futures[0], concurrent.futures.Future):
        _when_done(only, lambda _: callback())
        return
    lock = threading.Lock()
    left = len(futures) + 1

    def one_done(_: object = None) -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = left == 0
        if is_last:
            callback()

    here = running_loop()
    for future in futures:
        if isinstance(future, concurrent.futures.Future):
            _when_done(future, one_done)
        elif (loop := future.get_loop()) is here:
            future.add_done_callback(one_done)
        elif not loop.is_running() or not _add_callback_on(loop, future, one_done):
            one_done()
    one_done()


def _when_done(future: concurrent.futures.Future[Any], callback: Callable[[Any], object]) -> None:
    if future.done():
        # Not by it, who would swallow what falls in.
        callback(future)
    else:
        future.add_done_callback(callback)


def _add_callback_on(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], callback: Callable[[Any], None]
) -> bool:
    """Add a callback from another thread; return False if the loop has been closed meanwhile."""
    try:
        loop.call_soon_threadsafe(future.add_done_callback, callback)
    except RuntimeError:
        return False
    return True
