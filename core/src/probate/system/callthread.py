"""Calls that may hang, made on a thread that can be left behind."""

from __future__ import annotations

import concurrent.futures
import contextvars
import queue
import threading
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Callable


@final
class CallThread:
    """Runs calls one after another on one daemon thread, started with the first.

    A call that hangs keeps the thread; `abandon` it, and the next call gets a fresh one. A
    daemon, since a hung call must not keep the interpreter from exiting.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        """Start a call, in the caller's context variables; return its future.

        Raises RuntimeError if no thread can be started.
        """
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        context = contextvars.copy_context()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = context.run(function)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        if self._calls is None:
            self._start(call, future)
        else:
            self._calls.put(call)
        return future

    def _start(self, call: Callable[[], None], future: concurrent.futures.Future[Any]) -> None:
        # The first call is there before the thread is: it need not be waited for, and then woken.
        calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        calls.put(call)
        thread = threading.Thread(target=_serve, args=(calls,), name=self._name, daemon=True)
        self._calls, self._thread = calls, thread
        try:
            thread.start()
        except BaseException:
            # There are no more threads, or an interrupt came in between. A call that has begun
            # by then is left to end, before any other.
            if future.cancel():
                self.abandon()
            raise

    def abandon(self) -> None:
        """Leave a hung call to itself; its thread ends when the call does."""
        if self._calls is not None:
            self._calls.put(None)
        self._calls = self._thread = None

    def close(self) -> None:
        """End the thread, which must not be in a call, and wait until it is gone."""
        thread = self._thread
        self.abandon()
        if thread is not None:
            thread.join()


def _serve(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
