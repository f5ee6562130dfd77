"""Event loops on threads of their own, and waiting for what comes about on its own."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class LoopThread:
    """An event loop that runs on a thread of its own for the length of a `with` block."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = asyncio.new_event_loop() if loop is None else loop
        self._thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.loop.close()

    @property
    def ident(self) -> int | None:
        return self._thread.ident

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and wait for what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function there, while the loop runs."""

        async def call() -> T:
            return function(*args, **kwargs)

        return self.run(call())


def eventually(condition: Callable[[], object], seconds: float = 5) -> None:
    """Wait until `condition()` holds; fail if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it did not come about")
        time.sleep(0.001)


async def until(condition: Callable[[], object], seconds: float = 5) -> None:
    """As `eventually`, and let the event loop run meanwhile."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  threads set no events of the loop
            await asyncio.sleep(0.001)
