"""Waits that can be ended from elsewhere, so that no descriptor is closed under a sleeper."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING, Self, final

from probate.system import built
from probate_rings.memory import create_doorbell

if TYPE_CHECKING:
    from collections.abc import Iterable


@final
class InterruptibleWait:
    """Lets threads wait for descriptors until it is closed."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._sleepers = 0
        self._is_closing = False
        #: An eventfd. Last: what falls in after that has all of it.
        self._descriptor = create_doorbell()

    @classmethod
    def made(cls) -> Self:
        """Make one, or nothing if an exception falls in. Raises OSError."""
        return built(cls, lambda made: made, lambda made: made.close(0))

    def wait(self, fds: Iterable[int], timeout: float | None) -> set[int]:
        """Wait until one of `fds` is readable; return those that are.

        `timeout` is in seconds, None waits for ever. Empty after the timeout, or when closed.
        """
        with self._changed:
            if self._is_closing:
                return set()
            self._sleepers += 1
        try:
            poll = select.poll()
            wake = self._descriptor.number
            for fd in (wake, *fds):
                poll.register(fd, select.POLLIN)
            ready = poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
            return {fd for fd, _ in ready if fd != wake}
        finally:
            with self._changed:
                self._sleepers -= 1
                self._changed.notify_all()

    def close(self, patience: float) -> bool:
        """Wake all waiters, for good; False if they have not left after `patience` seconds.

        They need nobody's help to leave, only the time to be scheduled.
        """
        with self._changed:
            self._is_closing = True
            # Closed elsewhere, its number may be another's.
            if self._descriptor.is_ours:
                os.eventfd_write(self._descriptor.number, 1)
            if not self._changed.wait_for(lambda: not self._sleepers, patience):
                return False
            self._descriptor.close()
            return True
