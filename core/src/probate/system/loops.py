"""Calls on the event loop that a thing belongs to, from whatever thread lets go of it."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from probate.errors import BusyResourceError, ReleaseError, ReleaseTimeoutError
from probate.system.callthread import CallThread
from probate.system.future import Future
from probate.system.lazy import lazy_module

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager
else:
    asyncio = lazy_module("asyncio")

T = TypeVar("T")

#: The loop whose own thread waits for what is being done here, so that nothing runs on it.
_held_up: Final[ContextVar[asyncio.AbstractEventLoop | None]] = ContextVar(
    "probate_held_up_loop", default=None
)

#: When whoever waits for what is being done here gives up, on the monotonic clock.
_give_up_at: Final[ContextVar[float]] = ContextVar("probate_give_up_at", default=float("inf"))

#: Seconds between two checks that a loop which is waited for still runs.
_LOOK_EVERY: Final = 0.1

#: The parts of the remaining time after which one call is cancelled, and then left behind: the
#: rest is for the next one.
_CANCEL_AT: Final = 0.7
_LEAVE_AT: Final = 0.8


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs on this thread, None if none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def held_up_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that waits for what is done here, so that nothing moves on it."""
    return _held_up.get()


@contextmanager
def _having(variable: ContextVar[T], value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        # Where a coroutine that nobody ends is collected, it is another context: nothing is to do.
        with suppress(ValueError):
            variable.reset(token)


def holding_up(loop: asyncio.AbstractEventLoop | None) -> AbstractContextManager[None]:
    """Note for what is called within, on whichever thread, that `loop` waits for it."""
    # One that waits further out waits still.
    return _having(_held_up, loop or _held_up.get())


def giving_up_after(seconds: float) -> AbstractContextManager[None]:
    """Note for what is called within, on whichever thread, how long it is waited for."""
    return _having(_give_up_at, time.monotonic() + seconds)


def run_on_loop(make: Callable[[], Awaitable[Any]], loop: asyncio.AbstractEventLoop | None) -> Any:
    """Await what `make` returns on `loop`, from another thread; return its result.

    Without a loop it is awaited on a new one, on a thread of its own (asyncio.run). Raises what
    was raised there; ReleaseError if the loop is closed; BusyResourceError if it does not run, or
    waits for this very call; ReleaseTimeoutError if it has not begun while there was time.
    """
    seconds = _give_up_at.get() - time.monotonic()
    # Taken by whoever is first: the coroutine that begins, or the one who gives it up.
    claim = threading.Lock()
    if loop is None:
        thread = CallThread("probate-coroutine")
        try:
            future = thread.submit(lambda: asyncio.run(_await(make, seconds, claim)))
            return _result_of(future, seconds, claim)
        finally:
            thread.abandon()
    if loop.is_closed():
        raise ReleaseError("its event loop is closed, so what had to run there did not")
    if loop is running_loop() or loop is _held_up.get():
        raise BusyResourceError(
            "has to run on the event loop that waits for it here: end it from elsewhere, or with "
            "the async form (terminate_process_async, give_back_async)"
        )
    if not loop.is_running():
        raise BusyResourceError("has to run on its event loop, which does not run")
    coroutine = _await(make, seconds, claim)
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        raise ReleaseError("its event loop was closed before it could run there") from None
    return _result_of(future, seconds, claim, loop)


def call_on_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[[], object]
) -> concurrent.futures.Future[None] | None:
    """Call a plain function on `loop`, from any thread; return None if the loop does not run.

    The future is done one turn of the loop later, so that what the function has scheduled there
    has run as well; what the function raises is the loop's to report.
    """
    if loop.is_closed() or not loop.is_running():
        return None
    done: concurrent.futures.Future[None] = Future()

    def call() -> None:
        try:
            function()
        finally:
            loop.call_soon(done.set_result, None)

    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        # It was closed meanwhile.
        return None
    return done


async def _await(make: Callable[[], Awaitable[Any]], seconds: float, claim: threading.Lock) -> Any:
    """Await, unless whoever asked has given it up before it began: then it is never made."""
    if not claim.acquire(blocking=False):
        return None
    limit = asyncio.timeout(None if seconds == float("inf") else seconds * _CANCEL_AT)
    try:
        async with limit:
            return await make()
    except TimeoutError:
        if limit.expired():
            # It may have released all, some or nothing: it is not made a second time.
            raise ReleaseError("its coroutine did not end in time, and was cancelled") from None
        raise


def _result_of(
    future: concurrent.futures.Future[Any],
    seconds: float,
    claim: threading.Lock,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Any:
    over = time.monotonic() + seconds * _LEAVE_AT
    while not future.done():
        left = over - time.monotonic()
        if left <= 0:
            if claim.acquire(blocking=False):
                raise ReleaseTimeoutError("its event loop did not come to it in time")
            future.cancel()
            raise ReleaseError("its coroutine did not end in time, nor when it was cancelled")
        concurrent.futures.wait([future], min(left, _LOOK_EVERY))
        if loop is not None and not loop.is_running() and not future.done():
            if claim.acquire(blocking=False):
                raise BusyResourceError("has to run on its event loop, which was stopped meanwhile")
            future.cancel()
            raise ReleaseError("its event loop was stopped before its coroutine had ended")
    return future.result()
