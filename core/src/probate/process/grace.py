"""Grace: the wait for users to stop, which whoever is in a hurry can end from elsewhere."""

from __future__ import annotations

import concurrent.futures
import contextlib
from functools import partial
from typing import TYPE_CHECKING, final
from weakref import WeakSet

from probate.system.future import Future
from probate.termination.waiting import Wait, when_all_done

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probate.hookspecs import AnyFuture


@final
class Grace:
    """Makes the waits for users to stop, for all terminations of one manager."""

    def __init__(self) -> None:
        #: Whether nobody gets a grace any more.
        self.is_over = False
        self._waits: WeakSet[concurrent.futures.Future[None]] = WeakSet()

    def wait(self, futures: Sequence[AnyFuture], seconds: float) -> Wait:
        """Make the wait for all `futures`, of so many seconds, or until the grace is ended."""
        over: concurrent.futures.Future[None] = Future()
        self._waits.add(over)
        when_all_done(futures, partial(_resolve, over))
        # Looked at last, while `end` sets it first and then looks for waits: one of the two sees
        # the other.
        if self.is_over:
            _resolve(over)
        return Wait([over], seconds, is_grace=True)

    def end(self) -> None:
        """End all waits, from any thread, and make none that lasts from here on."""
        self.is_over = True
        for over in list(self._waits):
            _resolve(over)


def _resolve(over: concurrent.futures.Future[None]) -> None:
    # Its users may have stopped at this very moment.
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        over.set_result(None)
