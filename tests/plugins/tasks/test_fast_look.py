"""The quick look at what a task awaits, held against the thorough one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from probate_tasks.following import Behind, look_behind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    Await = Callable[[], Coroutine[Any, Any, object]]


async def sleep() -> None:
    await asyncio.sleep(3600)


async def wait_for_an_event() -> None:
    await asyncio.Event().wait()


async def wait_for_an_item() -> None:
    await asyncio.Queue[int]().get()


async def wait_for_a_promise() -> None:
    await asyncio.get_running_loop().create_future()


async def wait_for_a_task() -> None:
    await asyncio.ensure_future(asyncio.sleep(3600))


async def wait_for_a_pending_task() -> None:
    await asyncio.wait([asyncio.ensure_future(asyncio.sleep(3600))])


async def shield() -> None:
    await asyncio.shield(asyncio.sleep(3600))


async def gather() -> None:
    await asyncio.gather(asyncio.sleep(3600), asyncio.Event().wait())


INNERMOST: list[Await] = [
    sleep,
    wait_for_an_event,
    wait_for_an_item,
    wait_for_a_promise,
    wait_for_a_task,
    wait_for_a_pending_task,
    shield,
    gather,
]


async def plainly(inner: Await) -> None:
    await inner()


async def at_last(inner: Await) -> None:
    try:
        await asyncio.sleep(0)
    finally:
        await inner()


async def in_a_loop(inner: Await) -> None:
    for _ in range(2):
        await inner()


async def with_a_lock(inner: Await) -> None:
    async with asyncio.Lock():
        await inner()


async def with_a_timeout(inner: Await) -> None:
    async with asyncio.timeout(3600):
        await inner()


async def beside_a_child(inner: Await) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(3600))
        await inner()


async def beside_a_child_in_a_stack(inner: Await) -> None:
    async with contextlib.AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(asyncio.sleep(3600))
        await inner()


@contextlib.asynccontextmanager
async def child() -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(3600))
        yield


async def in_the_context_of_a_child(inner: Await) -> None:
    async with child():
        await inner()


async def between_completions(inner: Await) -> None:
    for each in asyncio.as_completed([asyncio.sleep(0), asyncio.sleep(3600)]):
        await each
        await inner()


async def as_an_iterator(inner: Await) -> None:
    async def each() -> AsyncIterator[None]:
        await inner()
        yield

    async for _ in each():
        pass


class Object:
    def __init__(self, inner: Await) -> None:
        self._inner = inner

    def __await__(self) -> Any:
        return self._inner().__await__()


async def by_an_object(inner: Await) -> None:
    await Object(inner)


AROUND = [
    plainly,
    at_last,
    in_a_loop,
    with_a_lock,
    with_a_timeout,
    beside_a_child,
    beside_a_child_in_a_stack,
    in_the_context_of_a_child,
    between_completions,
    as_an_iterator,
    by_an_object,
]


def nested(innermost: Await, around: list[Callable[[Await], Any]]) -> Await:
    for each in around:
        innermost = lambda inner=innermost, each=each: each(inner)  # type: ignore[misc]  # noqa: E731
    return innermost


@given(st.sampled_from(INNERMOST), st.lists(st.sampled_from(AROUND), max_size=4))
def test_the_quick_look_misses_nothing(
    innermost: Await, around: list[Callable[[Await], Any]]
) -> None:
    """Where it says that nothing is behind a task, the thorough look finds nothing either.

    And whatever else runs on the loop, the thorough look finds behind the task.
    """

    async def main() -> None:
        task = asyncio.ensure_future(nested(innermost, around)())
        for _ in range(20):
            await asyncio.sleep(0)
        here = asyncio.current_task()
        others = asyncio.all_tasks() - {task, here}
        thorough = Behind(task, lambda _: False)
        quick = look_behind(task, lambda _: False)

        assert set(thorough.work) == others
        if quick is None:
            assert thorough.work == thorough.promises == []
        else:
            assert set(quick.work) == others
            assert quick.promises == thorough.promises
        if innermost is wait_for_a_promise:
            assert thorough.promises

        task.cancel()
        for each in others:
            each.cancel()
        await asyncio.wait([task, *others])

    asyncio.run(main())
