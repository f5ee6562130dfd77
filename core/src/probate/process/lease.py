"""Lease: all of a manager ends unless somebody says in time that it is to go on."""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Protocol, final

from probate.process.errors import LeaseExpiredError, ManagerClosedError
from probate.system.deathwatch import death_watch
from probate.system.exiting import start_call
from probate.system.forking import forget_in_forked_child
from probate.system.log import logger

if TYPE_CHECKING:
    from probate.system.deathwatch import Timer


#: Seconds until it is tried again to end all.
_AGAIN: Final = 1.0


class Closable(Protocol):
    """Ends all that it has: what is needed of a manager."""

    def close(self) -> None:
        """Terminate all."""


@final
class Lease:
    """Closes a manager if it is not renewed for so many seconds. Thread-safe.

    Time in which the machine sleeps counts (CLOCK_BOOTTIME, clock_gettime(2)): others, who may
    have taken the lease over, do not sleep. A host that is stopped (SIGSTOP) ends nothing before
    it goes on. A forked child has no lease.
    """

    def __init__(self, manager: Closable, seconds: float) -> None:
        self.seconds: Final = seconds
        self._manager = weakref.ref(manager)
        self._lock = threading.RLock()
        self._timer: Timer | None = None
        #: When, in seconds since boot.
        self._expires = 0.0
        #: Whether the manager was told to close, or has been closed before.
        self._is_over = self._is_closed = False
        forget_in_forked_child(self)

    def renew(self) -> None:
        """Let it last so many seconds from now on.

        Raises LeaseExpiredError if it is over, ManagerClosedError if the manager was closed before.
        """
        with self._lock:
            if self._is_closed:
                raise ManagerClosedError("there is nothing to renew")
            if self._left() <= 0:
                self._expire()
                raise LeaseExpiredError(self.seconds)
            self._begin()

    def begin(self) -> None:
        """Let it last so many seconds, the first time."""
        with self._lock:
            self._begin()

    def end(self) -> None:
        """Expire no more: the manager is closed."""
        with self._lock:
            # Not if it is closed since the lease is over: that is what is to be said.
            self._is_closed = not self._is_over
            timer, self._timer = self._timer, None
        if timer is not None:
            death_watch.cancel(timer)

    def forget_parent(self) -> None:
        """Be over, in a forked child."""
        self._lock = threading.RLock()
        self._timer, self._expires = None, 0.0

    # -- inside; the lock is held --------------------------------------------

    def _left(self) -> float:
        return self._expires - time.clock_gettime(time.CLOCK_BOOTTIME)

    def _begin(self) -> None:
        self._expires = time.clock_gettime(time.CLOCK_BOOTTIME) + self.seconds
        if self._timer is None:
            self._timer = death_watch.call_later(self.seconds, self._look)

    def _look(self) -> None:
        """See whether it was renewed since. The thread of the death watch calls it."""
        with self._lock:
            if self._timer is None:
                return
            left = self._left()
            self._timer = death_watch.call_later(left, self._look) if left > 0 else None
            if left <= 0:
                self._expire()

    def _expire(self) -> None:
        if self._is_over or (manager := self._manager()) is None:
            return
        logger.warning("the lease of %g s was not renewed: all processes are ended", self.seconds)
        self._is_over = start_call(manager.close)
        if not self._is_over:
            # There are no threads to be had. Whoever renews it is told, whatever comes of this.
            self._timer = death_watch.call_later(_AGAIN, self._look)
