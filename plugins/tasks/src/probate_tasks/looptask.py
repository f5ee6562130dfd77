"""asyncio tasks and futures, which only their own event loop may touch."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, Final, final

from probate import BusyResourceError, Outcome
from probate.system import lazy_module
from probate_tasks import stacks
from probate_tasks.job import Job
from probate_tasks.loopcontext import LoopContext
from probate_tasks.work import name_of_task, when_finished

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from probate_tasks.cancellation import Cancellation
    from probate_tasks.stoprequest import StopRequest
else:
    asyncio = lazy_module("asyncio")

#: How many awaits in a row a coroutine's exit is closed through.
_MAX_AWAITS: Final = 16


@final
class LoopTask(Job):
    """An asyncio task, or a future that is no task: cancelled and awaited on its own loop."""

    __slots__ = ("_loop",)

    future: asyncio.Future[Any]

    def __init__(self, native: Any, future: asyncio.Future[Any]) -> None:
        super().__init__(native, future)
        self._loop = future.get_loop()

    def __repr__(self) -> str:
        if not isinstance(self.future, asyncio.Task):
            return f"asyncio future, {self.status}"
        return f"{name_of_task(self.future)}, {self.status}"

    def when_over(self, callback: Callable[[object], None]) -> None:
        """Have `callback` called on the loop, with the future, when the task is done."""
        self.on_over = callback
        when_finished(self.future, callback)

    def ask_to_stop(self, cancellation: Cancellation, request: StopRequest | None = None) -> bool:
        """As any job; where its own loop asks, without finding out for each what is so for all."""
        future, here = self.future, cancellation.here
        if here.loop is not self._loop:
            return super().ask_to_stop(cancellation, request)
        self.is_caller = future is here.task
        if self.is_caller or self.is_over():
            return False
        self._note_asked(request)
        cancellation.cancel(self, future)
        if self.is_over():
            self.notify()
        return not self.is_caller

    def can_end(self) -> bool:
        """Whether its loop runs."""
        return self._loop.is_running()

    def may_block(self) -> bool:
        """Whether its coroutine is to be closed here, for want of a loop."""
        return not self.future.done() and self._loop.is_closed()

    def is_running_here(self) -> bool:
        """Whether it is its loop's current task, on this thread."""
        return LoopContext.find().task is self.future

    def release_by_force(self, cancellation: Cancellation) -> Outcome:
        """Close what no loop will ever run again; of anything else, tell where it stands."""
        if self._loop.is_closed():
            cancellation.follow(self, self.future)
            try:
                self._close()
            finally:
                is_over = self.is_over()
                if is_over:
                    self.note_counted()
            if not is_over:
                raise self.goes_on()
            return Outcome.RELEASED
        stack = ""
        if isinstance(self.future, asyncio.Task):
            stack = f"; it stands at\n{stacks.of_task(self.future)}"
        if not self._loop.is_running():
            raise BusyResourceError(
                "asked to cancel, but its event loop does not run: run the loop, or close it"
                f"{stack}"
            )
        raise BusyResourceError(f"asked to cancel, it has not ended{stack}")

    def _close(self) -> None:
        """End a task whose loop is closed, so that it can never end itself.

        Raises what the coroutine's exit raises, RuntimeError if the exit had to await something.
        """
        try:
            if isinstance(self.future, asyncio.Task):
                _close_coroutine(self.future)
        finally:
            # Task.cancel would only ask the loop. The future underneath can be cancelled, and
            # then the task is not "destroyed but pending" when it is collected. Its callbacks
            # cannot be scheduled any more, which is the RuntimeError.
            with contextlib.suppress(RuntimeError):
                asyncio.Future.cancel(self.future)


def _close_coroutine(task: asyncio.Task[Any]) -> None:
    coroutine = task.get_coro()
    if not inspect.iscoroutine(coroutine):
        return
    # The exit belongs into the task's own context (PEP 567), which 3.12 is the first to tell.
    context = task.get_context() if hasattr(task, "get_context") else None
    close = coroutine.close if context is None else lambda: context.run(coroutine.close)
    refusal: RuntimeError | None = None
    for _ in range(_MAX_AWAITS):
        try:
            close()
        except Exception as error:
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED:
                words = f"{type(error).__name__}: {error}"
                raise RuntimeError(f"its loop is closed, and its exit raised {words}") from error
            # It awaited within its exit. Closed again, it goes on from there.
            refusal = RuntimeError("its loop is closed, and its exit skipped what it awaited")
        else:
            break
    if refusal is not None:
        raise refusal
