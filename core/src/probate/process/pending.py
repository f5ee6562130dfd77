"""How the account of a process reaches those who wait for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING, Final, final

from probate.system.exiting import is_exiting
from probate.system.future import Future
from probate.termination.waiting import wake

if TYPE_CHECKING:
    from probate.models import CleanupResult
    from probate.termination.steps import Termination

#: Held while a future is made: most processes need none, and two callers may ask at once.
_making: Final = threading.RLock()


@final
class Run:
    """Stands for one call that terminates processes; `is_lost` when it was thrown out of it."""

    __slots__ = ("is_lost",)

    def __init__(self) -> None:
        self.is_lost = False


@final
class PendingResult:
    """Holds the account of one termination, or the error that came instead; set once.

    Most accounts are never waited for, so a future is made only when somebody first asks.
    """

    __slots__ = ("_future", "loop", "outcome", "run", "termination")

    def __init__(self) -> None:
        #: None until the termination is over.
        self.outcome: CleanupResult | BaseException | None = None
        #: The event loop on which the termination runs, while it runs on any.
        self.loop: asyncio.AbstractEventLoop | None = None
        #: Who runs the termination, while anybody does.
        self.run: Run | None = None
        #: The steps of the termination, while it runs.
        self.termination: Termination | None = None
        self._future: concurrent.futures.Future[CleanupResult] | None = None

    @property
    def is_lost(self) -> bool:
        """Tell whether nobody runs the termination any more, so that the next to ask takes it."""
        loop = self.loop
        is_stopped = loop is not None and (
            loop.is_closed() or (is_exiting() and not loop.is_running())
        )
        return is_stopped or (self.run is not None and self.run.is_lost)

    @property
    def future(self) -> concurrent.futures.Future[CleanupResult]:
        """Return a future of the account, for waiting and for callbacks."""
        with _making:
            if self._future is None:
                self._future = Future()
            future = self._future
        # Looked at last, while `resolve` sets the outcome first and then looks for a future: at
        # least one of the two sees the other, without a lock around every termination.
        if self.outcome is not None:
            _resolve(future, self.outcome)
        return future

    def resolve(self, outcome: CleanupResult | BaseException) -> None:
        """Set the outcome, and wake those who wait."""
        self.outcome = outcome
        self.loop = self.run = self.termination = None
        if self._future is not None:
            _resolve(self._future, outcome)

    def result(self, timeout: float | None = None) -> CleanupResult:
        """Wait for the account, and return it.

        Raises TimeoutError after `timeout` seconds, and the error that came instead.
        """
        outcome = self.outcome
        if outcome is None:
            is_for_ever = timeout is None or timeout > threading.TIMEOUT_MAX
            return self.future.result(None if is_for_ever else timeout)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def result_async(self) -> CleanupResult:
        """Wait as `result` does, without blocking the event loop."""
        if self.outcome is None:
            # For an event, and not for a future that stands in front of another: a task that is
            # cancelled here has nothing behind it that goes on, and is over.
            over, loop = asyncio.Event(), asyncio.get_running_loop()
            self.future.add_done_callback(lambda _: wake(loop, over))
            await over.wait()
        return self.result()


def _resolve(
    future: concurrent.futures.Future[CleanupResult], outcome: CleanupResult | BaseException
) -> None:
    # Where `future` and `resolve` saw each other, the second comes too late.
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
