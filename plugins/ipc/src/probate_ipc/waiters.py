"""Those who wait for an in-process queue: threads, and tasks of any event loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol, final

from probate.system import lazy_module

if TYPE_CHECKING:
    import asyncio
    from collections import deque
else:
    asyncio = lazy_module("asyncio")


class Waiter(Protocol):
    """One who waits. Woken once; what it waited for may be gone again, so it looks anew."""

    def wake(self) -> bool:
        """Wake it, from any thread, without blocking; False if it can never run again."""


@final
class ThreadWaiter:
    """A thread."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> bool:
        """See Waiter."""
        self._lock.release()
        return True

    def wait(self, timeout: float | None) -> bool:
        """Sleep until woken; False after `timeout` seconds."""
        return self._lock.acquire(
            timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        )


@final
class TaskWaiter:
    """A task of the running event loop."""

    __slots__ = ("_loop", "_woken")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = self._loop.create_future()

    def wake(self) -> bool:
        """See Waiter. False if its loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            return False
        return True

    async def wait(self) -> None:
        """Sleep until woken."""
        await self._woken

    def _set(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)


def wake_next(waiters: deque[Waiter]) -> None:
    """Wake the one who has waited longest and can still run."""
    while waiters:
        if waiters.popleft().wake():
            return


def wake_all(waiters: deque[Waiter]) -> None:
    """Wake everybody."""
    while waiters:
        waiters.popleft().wake()
