"""Waits on threads and on event loops: when each is over, and what an interrupt ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from probate.termination.waiting import Wait, run, run_async

if TYPE_CHECKING:
    from collections.abc import Generator

Futures = list[concurrent.futures.Future[Any]]


def steps(
    futures: Futures, timeout: float, *, is_grace: bool = False
) -> Generator[Wait, None, Any]:
    yield Wait(futures, timeout, is_grace)
    return [future.done() for future in futures]


@pytest.fixture(params=["thread", "loop"])
def drive(request: pytest.FixtureRequest) -> Any:
    """Run steps either way."""
    return run if request.param == "thread" else lambda steps: asyncio.run(run_async(steps))


def test_a_wait_is_over_with_the_last_future(drive: Any) -> None:
    """Not with the first, and not with the timeout."""
    futures: Futures = [concurrent.futures.Future() for _ in range(3)]
    for number, future in enumerate(futures):
        threading.Timer(0.02 * number, future.set_result, [None]).start()

    assert drive(steps(futures, 20)) == ([True, True, True], None)


def test_a_wait_ends_at_its_timeout(drive: Any) -> None:
    """What is not done then is left."""
    done: concurrent.futures.Future[None] = concurrent.futures.Future()
    done.set_result(None)
    began = time.monotonic()

    assert drive(steps([done, concurrent.futures.Future()], 0.1)) == ([True, False], None)
    assert 0.1 <= time.monotonic() - began < 2


def test_a_wait_for_nothing_is_none(drive: Any) -> None:
    """No futures, no time, and even with a timeout of infinity."""
    assert drive(steps([], 20)) == ([], None)
    assert drive(steps([], float("inf"))) == ([], None)
    assert drive(steps([concurrent.futures.Future()], 0)) == ([False], None)


def test_a_straggler_may_finish_when_its_waiter_is_gone(drive: Any) -> None:
    """A future that is done after the timeout, the loop being closed by then, disturbs nobody."""
    late: concurrent.futures.Future[None] = concurrent.futures.Future()
    drive(steps([late], 0.01))
    late.set_result(None)

    assert late.done()


def test_a_wait_for_what_is_done_is_a_turn_of_the_loop() -> None:
    """Whoever was woken by then goes on before the steps do."""
    log: list[str] = []

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def user() -> None:
            await future
            log.append("user")

        def asking() -> Generator[Wait, None, None]:
            done: concurrent.futures.Future[None] = concurrent.futures.Future()
            done.set_result(None)
            future.set_result(None)
            yield Wait([done], 20, is_grace=True)
            log.append("steps")

        task = asyncio.create_task(user())
        await asyncio.sleep(0)
        await run_async(asking())
        await task

    asyncio.run(main())

    assert log == ["user", "steps"]


def test_an_interrupt_holds_no_futures() -> None:
    """Its traceback keeps the frame that waited, but not what was waited for."""
    references: list[weakref.ref[Any]] = []

    async def main() -> Any:
        def steps() -> Generator[Wait, None, None]:
            for _ in range(2):
                future: concurrent.futures.Future[None] = concurrent.futures.Future()
                references.append(weakref.ref(future))
                yield Wait([future], 30, is_grace=True)
                del future

        task = asyncio.create_task(run_async(steps()))
        await asyncio.sleep(0.01)
        task.cancel()
        return await task

    _, interrupt = asyncio.run(main())

    assert interrupt.__traceback__ is not None
    assert [reference() for reference in references] == [None, None]


def test_what_steps_raise_is_raised(drive: Any) -> None:
    """An error of ours is not hidden."""

    def failing() -> Generator[Wait, None, None]:
        yield Wait([], 0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drive(failing())


def test_a_cancellation_ends_a_grace_and_skips_the_next() -> None:
    """But never a wait that is no grace."""

    async def main() -> tuple[Any, float]:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()

        def two_graces_and_a_wait() -> Generator[Wait, None, bool]:
            yield Wait([concurrent.futures.Future()], 30, is_grace=True)
            yield Wait([concurrent.futures.Future()], 30, is_grace=True)
            asyncio.get_running_loop().call_later(0.05, future.set_result, None)
            yield Wait([future], 30)
            return future.done()

        task = asyncio.create_task(run_async(two_graces_and_a_wait()))
        await asyncio.sleep(0.01)
        task.cancel()
        began = time.monotonic()
        return await task, time.monotonic() - began

    (value, interrupt), took = asyncio.run(main())

    assert value is True
    assert isinstance(interrupt, asyncio.CancelledError)
    assert took < 5
