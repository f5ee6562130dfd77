"""Settles processes that died unasked, many at a time."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, final

from probate.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger("probate")


@final
class Settler:
    """Runs coroutines on an event loop in a thread, both of which exist while any runs.

    So a process whose descendants use up their grace holds up no other.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queue: deque[Callable[[], Coroutine[Any, Any, object]]] = deque()
        self._thread: threading.Thread | None = None
        #: The thread before, which may be about to be gone.
        self._ending: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_work: asyncio.Event | None = None
        forget_in_forked_child(self)

    def settle(self, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run the coroutine that `make` makes; what it raises is logged. Never blocks."""
        with self._lock:
            self._queue.append(make)
            if self._thread is None:
                # A daemon: settling must not keep the interpreter from exiting.
                thread = threading.Thread(target=self._serve, name="probate-settler", daemon=True)
                self._thread = thread
                try:
                    thread.start()
                except BaseException:
                    self._thread = None
                    self._queue.remove(make)
                    raise
            elif self._loop is not None and self._has_work is not None:
                self._loop.call_soon_threadsafe(self._has_work.set)

    def join(self) -> None:
        """Wait until all is settled, and the thread gone; at once on that very thread."""
        with self._lock:
            threads = [self._thread, self._ending]
        for thread in threads:
            if thread is not None and thread is not threading.current_thread():
                thread.join()

    def forget_parent(self) -> None:
        """Settle nothing, in a forked child, where the thread is not."""
        self._lock = threading.RLock()
        self._queue = deque()
        self._thread = self._ending = self._loop = self._has_work = None

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        has_work = asyncio.Event()
        has_work.set()
        with self._lock:
            self._loop, self._has_work = asyncio.get_running_loop(), has_work
        tasks: set[asyncio.Task[object]] = set()

        def ended(task: asyncio.Task[object]) -> None:
            tasks.discard(task)
            has_work.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("settling a dead process failed", exc_info=error)

        while True:
            await has_work.wait()
            has_work.clear()
            with self._lock:
                while self._queue:
                    task = asyncio.ensure_future(self._queue.popleft()())
                    tasks.add(task)
                    task.add_done_callback(ended)
                if not tasks:
                    # From here on the next one starts a thread of its own.
                    self._ending = self._thread
                    self._thread = self._loop = self._has_work = None
                    return
