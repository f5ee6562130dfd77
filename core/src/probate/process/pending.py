"""How a process's account reaches whoever waits for it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.models import CleanupResult

#: For the making of a future, which few ask for, and two might at a time.
_making: Final = threading.RLock()


@final
class PendingResult:
    """The account of one termination, or what went wrong instead; set once.

    Most are never waited for. Who does has a future, which is made for the first to ask.
    """

    __slots__ = ("_future", "outcome")

    def __init__(self) -> None:
        #: None until there is one.
        self.outcome: CleanupResult | BaseException | None = None
        self._future: concurrent.futures.Future[CleanupResult] | None = None

    @property
    def future(self) -> concurrent.futures.Future[CleanupResult]:
        """What is done when there is an outcome."""
        with _making:
            if self._future is None:
                self._future = concurrent.futures.Future()
            future = self._future
        # Only now, while whoever settles looks for a future only after the outcome is set: one of
        # the two sees the other.
        if self.outcome is not None:
            _resolve(future, self.outcome)
        return future

    def resolve(self, outcome: CleanupResult | BaseException) -> None:
        """Set the outcome, and tell whoever waits."""
        self.outcome = outcome
        if self._future is not None:
            _resolve(self._future, outcome)

    def result(self, timeout: float | None = None) -> CleanupResult:
        """Wait for the account. Raises TimeoutError after `timeout` seconds; what went wrong."""
        outcome = self.outcome
        if outcome is None:
            return self.future.result(timeout)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def when_resolved(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when there is an outcome; at once, if there is."""
        self.future.add_done_callback(lambda _: callback())


def _resolve(
    future: concurrent.futures.Future[CleanupResult], outcome: CleanupResult | BaseException
) -> None:
    # Both may tell, and the second is too late.
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
