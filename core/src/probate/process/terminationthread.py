"""Settles processes that died unasked, many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import threading
import time
from collections import deque
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, final

from probate.system.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger("probate")

#: Seconds until an event loop is tried again that there were no descriptors for.
_PAUSE: Final = 0.1

#: The settler that settles around here: to wait for it would be to wait for oneself.
_running_here: Final[ContextVar[TerminationThread | None]] = ContextVar(
    "probate_settling_here", default=None
)


@final
class TerminationThread:
    """Runs coroutines on an event loop in a thread, so that none that waits holds up another.

    Both exist while any coroutine runs, or anybody keeps them ready for one to come.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queue: deque[Callable[[], Coroutine[Any, Any, object]]] = deque()
        #: The latest thread, and whether it still takes what is queued.
        self._thread: threading.Thread | None = None
        self._is_serving = False
        #: Has its event loop look at the queue; None while there is none.
        self._wake: Callable[[], None] | None = None
        #: How often `keep_ready` outnumbers `let_go`.
        self._keepers = 0
        self._inherited: list[object] = []
        forget_in_forked_child(self)

    def keep_ready(self) -> None:
        """Have thread and loop stay until `let_go`: to make them takes longer than to settle.

        Where they cannot be made now, they are when there is something to settle.
        """
        with self._lock:
            self._keepers += 1
            if not self._is_serving:
                with contextlib.suppress(RuntimeError):
                    self._start()

    def let_go(self) -> None:
        """Undo one `keep_ready`."""
        with self._lock:
            self._keepers -= 1
            if not self._keepers and self._wake is not None:
                self._wake()

    def run(self, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run the coroutine that `make` makes; what it raises is logged. Never blocks.

        Raises RuntimeError if no thread can be started; it is run together with the next one.
        """
        with self._lock:
            self._queue.append(make)
            if not self._is_serving:
                self._start()
            elif self._wake is not None:
                self._wake()

    def join(self) -> None:
        """Wait until all is settled, and the thread gone; at once from what is being settled."""
        if _running_here.get() is self:
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
        self._keepers = 0
        # Its event loop, finalised here, would stop listening for the parent as well.
        self._inherited.append(self._wake)
        self._thread = self._wake = None

    def _start(self) -> None:
        before = self._thread
        # A daemon: settling must not keep the interpreter from exiting.
        thread = threading.Thread(
            target=self._serve, args=(before,), name="probate-termination", daemon=True
        )
        self._thread, self._is_serving = thread, True
        try:
            thread.start()
        except BaseException:
            self._thread, self._is_serving = before, False
            raise

    def _serve(self, before: threading.Thread | None) -> None:
        _running_here.set(self)
        has_failed = False
        while True:
            try:
                _check_descriptors()
                with asyncio.Runner() as runner:
                    runner.run(self._main())
                break
            except OSError:
                with self._lock:
                    if not self._queue:
                        self._is_serving = False
                        break
                # A loop needs descriptors. The dead stay dead until there are some.
                if not has_failed:
                    logger.exception("settling dead processes has to wait")
                has_failed = True
                time.sleep(_PAUSE)
        # One that had nothing left to do, and may be about to be gone: who joins us joins it.
        if before is not None:
            before.join()

    async def _main(self) -> None:
        loop, context = asyncio.get_running_loop(), copy_context()
        over = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def wake() -> None:
            # In this thread's context, not in that of whoever has something to settle.
            loop.call_soon_threadsafe(begin, context=context)

        def begin() -> None:
            with self._lock:
                if self._wake is not wake:
                    # It is over, and another thread may take what is queued.
                    return
                while self._queue:
                    task = asyncio.ensure_future(_run_one(self._queue.popleft()))
                    tasks.add(task)
                    task.add_done_callback(end)
                if not tasks and not self._keepers:
                    # From here on the next one starts a thread of its own.
                    self._is_serving, self._wake = False, None
                    over.set()

        def end(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            begin()

        with self._lock:
            self._wake = wake
        begin()
        await over.wait()


def _check_descriptors() -> None:
    """Raise OSError if there are too few for an event loop, which complains when half made."""
    with select.epoll():
        for end in socket.socketpair():
            end.close()


async def _run_one(make: Callable[[], Coroutine[Any, Any, object]]) -> None:
    try:
        await make()
    except BaseException:
        # Not even a SystemExit of a plugin's gets on: it would end the loop, and leave all the
        # others unsettled for ever.
        logger.exception("settling a dead process failed")
