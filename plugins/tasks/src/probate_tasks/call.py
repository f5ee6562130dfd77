"""Calls in threads: our own workers', and those of other executors."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Any, final

from probate import BusyResourceError, Outcome
from probate.system import lazy_module
from probate_tasks import stacks
from probate_tasks.following import last_of_chain
from probate_tasks.job import Job

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from probate_tasks.cancellation import Cancellation
else:
    asyncio = lazy_module("asyncio")


@final
class ThreadCall(Job):
    """A call on one of our own threads, in the context variables of whoever submitted it."""

    __slots__ = ("_context", "_function", "_has_ended", "_thread", "name")

    future: concurrent.futures.Future[Any]

    def __init__(self, function: Callable[[], Any], name: str) -> None:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        super().__init__(future, future)
        self.name = name
        self._function = function
        self._context = contextvars.copy_context()
        self._thread: threading.Thread | None = None
        self._has_ended = False

    def __repr__(self) -> str:
        return f"call of {self.name}, {self.status}"

    def when_over(self, callback: Callable[[object], None]) -> None:
        """Nothing more: who makes the call tells when it is over."""

    def when_cancelled(self, callback: Callable[[object], None]) -> None:
        """Have `callback` called, with the future, when it is cancelled, by whoever cancels it."""

        def call(future: concurrent.futures.Future[Any]) -> None:
            if future.cancelled():
                callback(future)

        self.future.add_done_callback(call)

    def confirm_cancelled(self) -> None:
        """Tell those in `concurrent.futures.wait`, where no thread will come to do it."""
        self.future.set_running_or_notify_cancel()

    def run(self, on_return: Callable[[], None]) -> None:
        """Make the call, unless it was cancelled, and set its future.

        `on_return` comes before the result is out. Callbacks of the future are run before this
        returns: they are part of the call. What is no Exception comes out of them, as out of
        any executor's; the call is over all the same.
        """
        if self.future.done() and not self.future.cancelled():
            # Somebody else has set the result: there is nothing to be found out.
            self._has_ended = True
            return
        if not self.future.set_running_or_notify_cancel():
            return
        self._thread = threading.current_thread()
        result, error = _attempt(self._context, self._function)
        on_return()
        try:
            # Somebody else may have set it meanwhile.
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                if error is None:
                    self.future.set_result(result)
                else:
                    self.future.set_exception(error)
        finally:
            self._has_ended = True
            # An exception keeps the frames that it came through, and they their callers: here
            # and up the stack, nothing may refer back to the future that keeps the exception.
            del self, on_return, result, error

    def is_over(self) -> bool:
        """Whether its future was done before it began, or its thread is through with it."""
        return self._has_ended or (self._thread is None and self.future.done())

    def is_running_here(self) -> bool:
        """Whether this thread makes it."""
        return self._thread is threading.current_thread() and not self.is_over()

    def release_by_force(self, cancellation: Cancellation) -> Outcome:
        """Tell where it stands: that is all that can be done."""
        del cancellation
        thread = self._thread
        if thread is None or thread.ident is None:
            raise BusyResourceError("no thread has taken it up yet")
        stack = stacks.of_thread(thread.ident, _attempt, ThreadCall.run)
        raise BusyResourceError(f"{stacks.CANNOT_STOP}\n{stack}")


@final
class ExecutorCall(Job):
    """A call by some other executor; or a future for threads that somebody else sets."""

    __slots__ = ()

    future: concurrent.futures.Future[Any]

    def __repr__(self) -> str:
        return f"call in an executor, {self.status}"

    def when_over(self, callback: Callable[[object], None]) -> None:
        """Have `callback` called, with the future, when the executor is through with it.

        On whichever thread.
        """
        self.on_over = callback
        self.future.add_done_callback(callback)

    def cancel(self, cancellation: Cancellation) -> bool:
        """Request cancellation; if there is a task behind it by now, of the task."""
        # run_coroutine_threadsafe makes its task when the loop comes to it, maybe after adoption.
        return cancellation.cancel(self, last_of_chain(self.future))

    def is_running_here(self) -> bool:
        """Whether this thread makes it, for a `ThreadPoolExecutor`."""
        return stacks.is_executor_call_of(threading.get_ident(), self.future)

    def release_by_force(self, cancellation: Cancellation) -> Outcome:
        """Tell where it stands: that is all that can be done."""
        del cancellation
        future = last_of_chain(self.future)
        if isinstance(future, asyncio.Task):
            raise BusyResourceError(
                f"asked to cancel, it has not ended; it stands at\n{stacks.of_task(future)}"
            )
        raise BusyResourceError(f"{stacks.CANNOT_STOP}\n{stacks.of_executor_call(self.future)}")


def _attempt(
    context: contextvars.Context, function: Callable[[], Any]
) -> tuple[Any, BaseException | None]:
    try:
        return context.run(function), None
    except BaseException as error:
        return None, error
