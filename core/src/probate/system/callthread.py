"""CallThread: makes calls that may hang on a thread that can be left behind."""

from __future__ import annotations

import contextvars
import queue
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, final

from probate.system.exiting import (
    check_threads_run,
    join_thread,
    start_at_exit,
    start_call,
)
from probate.system.future import Future
from probate.system.interrupts import fallen_into

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable


@final
class CallThread:
    """Makes calls one after another on one daemon thread, which the first call starts.

    For calls that may hang: `abandon` the thread then, and the next call gets a fresh one. It is
    a daemon, since a hung call must not keep the interpreter from exiting. One that `is_for_loop`
    keeps the thread of an event loop waiting neither when it starts nor when it ends.
    """

    def __init__(self, name: str, *, is_for_loop: bool = False) -> None:
        self._name = name
        self._is_for_loop = is_for_loop
        self._calls: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._thread: threading.Thread | None = None
        #: What fell in while a thread was started that makes its call all the same.
        self.interrupt: BaseException | None = None

    def submit(self, function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        """Have a call made, in a copy of the caller's context; return its future.

        Raises RuntimeError if no thread can be started; the call is not made then. What falls in
        while one starts is raised; the call may be made all the same.
        """
        future = self.begin(function)
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            raise interrupt
        return future

    def begin(self, function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        """Have a call made as `submit` does; for those who must not lose its future.

        What falls in while a thread starts that makes the call all the same is kept as
        `interrupt`, for the caller to raise.
        """
        check_threads_run()
        future: concurrent.futures.Future[Any] = Future()
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
        # The first call is queued before the thread runs, which then need not wait to be woken.
        calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        calls.put(call)
        if start_at_exit(partial(_serve, calls)):
            self._calls = calls
            return
        thread = threading.Thread(target=_serve, args=(calls,), name=self._name, daemon=True)
        if self._is_for_loop and start_call(partial(_start_or_serve, thread, calls)):
            # Not here: `Thread.start` returns when the thread has run, and all that are started in
            # one turn of the loop would hold it up until the last one has.
            self._calls, self._thread = calls, None
            return
        before = sys.exception()
        try:
            thread.start()
            self._calls, self._thread = calls, thread
        except BaseException as error:
            # No thread can be started, or an exception fell in meanwhile. A call that has begun by
            # then is not made twice.
            fallen = fallen_into(error, before)
            if future.cancel():
                calls.put(None)
                self._calls = self._thread = None
                if fallen is None:
                    raise
                raise fallen from None
            self._calls, self._thread = calls, thread
            self.interrupt = self.interrupt or fallen or error

    def abandon(self) -> None:
        """Leave a hung call to itself; its thread ends when the call does."""
        if self._calls is not None:
            self._calls.put(None)
        self._calls = self._thread = None

    def close(self) -> None:
        """End the thread, which must not be in a call, and wait until it is gone.

        One that is for a loop is not waited for.
        """
        thread = self._thread
        self.abandon()
        if thread is not None:
            join_thread(thread)


def _start_or_serve(
    thread: threading.Thread, calls: queue.SimpleQueue[Callable[[], None] | None]
) -> None:
    try:
        thread.start()
    except RuntimeError:
        # No more can be started, but for this one.
        _serve(calls)


def _serve(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
