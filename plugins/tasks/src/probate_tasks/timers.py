"""What is to be called later: by a thread of its own, or by an event loop."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, ClassVar, final

from probate import BusyResourceError, Outcome
from probate.system import Future, lazy_module, running_loop
from probate_tasks import stacks
from probate_tasks.job import Job
from probate_tasks.status import TaskStatus

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from probate_tasks.cancellation import Cancellation
    from probate_tasks.watch import Watch
else:
    asyncio = lazy_module("asyncio")


@final
class TimerJob(Job):
    """A `threading.Timer`: cancelled, and waited for while its function runs."""

    __slots__ = ("_watch",)

    is_silent: ClassVar[bool] = True

    native: threading.Timer

    def __init__(self, native: threading.Timer, watch: Watch) -> None:
        super().__init__(native, Future())
        self._watch = watch

    def __repr__(self) -> str:
        return f"timer of {stacks.name_of(self.native.function)}, {self.status}"

    @property
    def status(self) -> TaskStatus:
        """PENDING before it is started; a thread that waits for its time is RUNNING."""
        if self.is_over():
            return TaskStatus.CANCELLED if self.is_asked else TaskStatus.DONE
        return TaskStatus.PENDING if self.native.ident is None else TaskStatus.RUNNING

    def done(self) -> bool:
        """As `is_over`, for a `Watch`."""
        return self.is_over()

    def is_over(self) -> bool:
        """Whether its thread has ended, or will never call anything."""
        timer = self.native
        return not timer.is_alive() and (timer.ident is not None or timer.finished.is_set())

    def when_over(self, callback: Callable[[object], None]) -> None:
        """Have `callback` called when it is over; a timer that nobody asks to stop tells nobody."""
        self.on_over = callback

    def cancel(self, cancellation: Cancellation) -> bool:
        """Have it call nothing, unless it does so by now."""
        del cancellation
        if self.is_over():
            return False
        self.native.cancel()
        self._watch.add(self, self.on_over)
        return True

    def is_running_here(self) -> bool:
        """Whether this is its thread."""
        return self.native is threading.current_thread()

    def release_by_force(self, cancellation: Cancellation) -> Outcome:
        """Tell where it stands: that is all that can be done."""
        del cancellation
        stack = stacks.of_thread(self.native.ident or 0, type(self.native).run)
        raise BusyResourceError(f"{stacks.CANNOT_STOP}\n{stack}")


@final
class HandleJob(Job):
    """What `call_later`, `call_at` or `call_soon` of an event loop has returned."""

    __slots__ = ("_companion", "_has_run", "_loop")

    is_silent: ClassVar[bool] = True

    def __init__(self, native: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(native, Future())
        self._loop = loop
        self._has_run = False
        #: Called right after it.
        self._companion: asyncio.Handle | None = None

    def __repr__(self) -> str:
        what = "timer" if hasattr(self.native, "when") else "callback"
        return f"{what} of an event loop, {self.status}"

    @property
    def status(self) -> TaskStatus:
        """PENDING until it is called, or cancelled."""
        if self.native.cancelled():
            return TaskStatus.CANCELLED
        return TaskStatus.DONE if self._has_run else TaskStatus.PENDING

    def is_over(self) -> bool:
        """Whether it was called, or will never be."""
        return self._has_run or bool(self.native.cancelled())

    def when_over(self, callback: Callable[[object], None]) -> None:
        """Have `callback` called on the loop when it was called or cancelled by us."""
        self.on_over = callback
        if running_loop() is self._loop:
            self._accompany()
        else:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._accompany)

    def cancel(self, cancellation: Cancellation) -> bool:
        """Cancel it on its own loop; False if it is over, or the loop closed."""
        if self.is_over():
            return False
        if cancellation.here.loop is self._loop:
            self._cancel()
            return True
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            return False
        return True

    def can_end(self) -> bool:
        """Whether its loop runs."""
        return self._loop.is_running()

    def may_block(self) -> bool:
        """Never: nobody is waited for."""
        return False

    def is_running_here(self) -> bool:
        """Whether the loop has called it, and it asks this."""
        return stacks.is_call_of_handle_here(self.native)

    def release_by_force(self, cancellation: Cancellation) -> Outcome:
        """Drop what no loop will ever call; of anything else, tell what it waits for."""
        del cancellation
        if self._loop.is_closed():
            return Outcome.RELEASED
        if not self._loop.is_running():
            raise BusyResourceError(
                "asked to cancel, but its event loop does not run: run the loop, or close it"
            )
        raise BusyResourceError("asked to cancel, but its event loop has not come to it yet")

    def _accompany(self) -> None:
        when = getattr(self.native, "when", None)
        if self.is_over():
            self._end()
        elif when is None or self._companion is not None:
            self._companion = self._loop.call_soon(self._note_run)
        else:
            # A timer of the same time may be before or after it, but what that calls is after.
            self._companion = self._loop.call_at(when(), self._accompany)

    def _note_run(self) -> None:
        self._has_run = True
        self._end()

    def _cancel(self) -> None:
        self.native.cancel()
        if self._companion is not None:
            self._companion.cancel()
        self._end()

    def _end(self) -> None:
        self.on_over(self)
