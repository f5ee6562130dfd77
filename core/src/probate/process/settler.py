"""Settles processes that died unasked, many at a time."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import threading
import time
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, final

from probate.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger("probate")

#: Seconds until an event loop is tried again that there were no descriptors for.
_PAUSE: Final = 0.1

#: The settler that settles around here: to wait for it would be to wait for oneself.
_settling_here: Final[ContextVar[Settler | None]] = ContextVar(
    "probate_settling_here", default=None
)


@final
class Settler:
    """Runs coroutines on an event loop in a thread, both of which exist while any runs.

    So a process whose descendants use up their grace holds up no other.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queue: deque[Callable[[], Coroutine[Any, Any, object]]] = deque()
        #: The latest thread, and whether it still takes what is queued.
        self._thread: threading.Thread | None = None
        self._is_serving = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_work: asyncio.Event | None = None
        forget_in_forked_child(self)

    def settle(self, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run the coroutine that `make` makes; what it raises is logged. Never blocks.

        Raises RuntimeError if no thread can be started; it is run together with the next one.
        """
        with self._lock:
            self._queue.append(make)
            if not self._is_serving:
                self._start()
            elif self._loop is not None and self._has_work is not None:
                self._loop.call_soon_threadsafe(self._has_work.set)

    def join(self) -> None:
        """Wait until all is settled, and the thread gone; at once from what is being settled."""
        if _settling_here.get() is self:
            return
        with self._lock:
            if self._queue and not self._is_serving:
                self._start()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def forget_parent(self) -> None:
        """Settle nothing, in a forked child, where the thread is not."""
        self._lock = threading.RLock()
        self._queue = deque()
        self._is_serving = False
        self._thread = self._loop = self._has_work = None

    def _start(self) -> None:
        before = self._thread
        # A daemon: settling must not keep the interpreter from exiting.
        thread = threading.Thread(
            target=self._serve, args=(before,), name="probate-settler", daemon=True
        )
        self._thread, self._is_serving = thread, True
        try:
            thread.start()
        except BaseException:
            self._thread, self._is_serving = before, False
            raise

    def _serve(self, before: threading.Thread | None) -> None:
        _settling_here.set(self)
        has_failed = False
        while True:
            try:
                _check_descriptors()
                with asyncio.Runner() as runner:
                    runner.run(self._main())
                break
            except OSError:
                # A loop needs descriptors. The dead stay dead until there are some.
                if not has_failed:
                    logger.exception("settling dead processes has to wait")
                has_failed = True
                time.sleep(_PAUSE)
        # One that had nothing left to do, and may be about to be gone: who joins us joins it.
        if before is not None:
            before.join()

    async def _main(self) -> None:
        has_work = asyncio.Event()
        has_work.set()
        with self._lock:
            self._loop, self._has_work = asyncio.get_running_loop(), has_work
        tasks: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            has_work.set()

        while True:
            await has_work.wait()
            has_work.clear()
            with self._lock:
                while self._queue:
                    task = asyncio.ensure_future(_settle(self._queue.popleft()))
                    tasks.add(task)
                    task.add_done_callback(ended)
                if not tasks:
                    # From here on the next one starts a thread of its own.
                    self._is_serving = False
                    self._loop = self._has_work = None
                    return


def _check_descriptors() -> None:
    """Raise OSError if there are too few for an event loop, which complains when half made."""
    with select.epoll():
        for end in socket.socketpair():
            end.close()


async def _settle(make: Callable[[], Coroutine[Any, Any, object]]) -> None:
    try:
        await make()
    except BaseException:
        # Not even a SystemExit of a plugin's gets on: it would end the loop, and leave all the
        # others unsettled for ever.
        logger.exception("settling a dead process failed")
