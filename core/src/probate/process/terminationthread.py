"""Terminates processes whose OS process has exited, many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
import time
from collections import deque
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from probate.system.exiting import join_thread
from probate.system.forking import forget_in_forked_child
from probate.system.interrupts import start_thread
from probate.system.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

#: Seconds until an event loop is tried again that there were no descriptors for.
_PAUSE: Final = 0.1

#: The one that runs what is called around a context: to join it would be to wait for oneself.
_running_here: Final[ContextVar[TerminationThread | None]] = ContextVar(
    "probate_termination_thread", default=None
)


@final
class TerminationThread:
    """Runs coroutines on an event loop in a thread, so that none that waits holds up another.

    Thread and loop exist while a coroutine runs, or while `keep_ready` was called more often than
    `let_go`.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queue: deque[Callable[[], Coroutine[Any, Any, object]]] = deque()
        #: The latest thread, and whether it still takes what is queued.
        self._thread: threading.Thread | None = None
        self._is_serving = False
        #: Has the event loop look at the queue; None while there is none.
        self._wake: Callable[[], object] | None = None
        #: How much more often `keep_ready` was called than `let_go`.
        self._users = 0
        self._inherited: list[object] = []
        forget_in_forked_child(self)

    def keep_ready(self) -> None:
        """Keep thread and loop until `let_go`: making them takes longer than a termination.

        If they cannot be made now, they are with the first coroutine.
        """
        with self._lock:
            self._users += 1
            start = self._prepare() if self._users > 0 and not self._is_serving else None
        if start is not None:
            with contextlib.suppress(RuntimeError):
                start()

    def let_go(self) -> None:
        """Undo one `keep_ready`."""
        with self._lock:
            self._users -= 1
            if not self._users and self._wake is not None:
                self._wake()

    def run(self, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run the coroutine that `make` makes, and log what it raises. Never blocks.

        Raises RuntimeError if no thread can be started; it is run together with the next one.
        """
        with self._lock:
            self._queue.append(make)
            start = None if self._is_serving else self._prepare()
            if self._wake is not None:
                self._wake()
        if start is not None:
            start()

    def join(self) -> None:
        """Wait until all coroutines have run, and the thread has ended.

        Returns at once in what such a coroutine calls, on whichever thread.
        """
        if _running_here.get() is self:
            return
        with self._lock:
            start = self._prepare() if self._queue and not self._is_serving else None
            thread = self._thread
        if start is not None:
            # If there can be none, what is queued has to wait for the next one.
            with contextlib.suppress(RuntimeError):
                start()
        if thread is not None and thread is not threading.current_thread():
            # One that is about to be started, by whom a signal handler has fallen into that closes
            # everything, finds that it has nothing to do.
            with contextlib.suppress(RuntimeError):
                join_thread(thread)

    def forget_parent(self) -> None:
        """Run nothing of the parent's, in a forked child, where the thread is not."""
        self._lock = threading.RLock()
        self._queue = deque()
        self._is_serving = False
        self._users = 0
        # Its event loop, finalised here, would stop listening for the parent as well.
        self._inherited.append(self._wake)
        self._thread = self._wake = None

    def _prepare(self) -> Callable[[], None]:
        """Make the thread, and return what starts it, without the lock, which it takes itself."""
        before = self._thread
        # A daemon: a termination that hangs must not keep the interpreter from exiting.
        thread = threading.Thread(
            target=self._serve, args=(before,), name="probate-termination", daemon=True
        )
        self._thread, self._is_serving = thread, True

        def start() -> None:
            try:
                start_thread(thread)
            except BaseException:
                with self._lock:
                    if thread.ident is None and self._thread is thread:
                        self._thread, self._is_serving = before, False
                raise

        return start

    def _serve(self, before: threading.Thread | None) -> None:
        _running_here.set(self)
        has_failed = False
        while True:
            try:
                _check_descriptors()
                with asyncio.Runner() as runner:
                    runner.run(self._run_queued())
                break
            except OSError:
                with self._lock:
                    if not self._queue:
                        self._is_serving = False
                        break
                # A loop needs descriptors. What is queued waits until there are some.
                if not has_failed:
                    logger.exception("terminating processes that have exited has to wait")
                has_failed = True
                time.sleep(_PAUSE)
        # The thread before this one may still be on its way out: to join this one is to join both.
        if before is not None:
            before.join()

    async def _run_queued(self) -> None:
        news = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def end(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            news.set()

        with self._lock:
            self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, news.set)
        while True:
            news.clear()
            with self._lock:
                while self._queue:
                    task = asyncio.ensure_future(_run_one(self._queue.popleft()))
                    tasks.add(task)
                    task.add_done_callback(end)
                if not tasks and not self._users:
                    # From here on the next coroutine starts a thread of its own.
                    self._is_serving, self._wake = False, None
                    return
            await news.wait()


def _check_descriptors() -> None:
    """Raise OSError if there are too few for an event loop, which complains when half made."""
    with select.epoll():
        for end in socket.socketpair():
            end.close()


async def _run_one(make: Callable[[], Coroutine[Any, Any, object]]) -> None:
    try:
        await make()
    except BaseException:
        # Not even a SystemExit of a plugin's gets on: it would end the loop, and nothing that is
        # queued would ever run.
        logger.exception("terminating a process that has exited failed")
