"""Waits that can be ended from elsewhere, so that no descriptor is closed under a sleeper."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterable


@final
class InterruptibleWait:
    """Lets threads wait for descriptors until it is closed."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._changed = threading.Condition(threading.Lock())
        self._sleepers = 0
        self._is_closing = False

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
            for fd in (self._fd, *fds):
                poll.register(fd, select.POLLIN)
            ready = poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
            return {fd for fd, _ in ready if fd != self._fd}
        finally:
            with self._changed:
                self._sleepers -= 1
                self._changed.notify_all()

    def close(self, patience: float) -> bool:
        """Wake all waiters, for good; False if they have not left after `patience` seconds.

        They need nobody's help to leave, only the time to be scheduled.
        """
        with self._changed:
            if self._fd == -1:
                return True
            self._is_closing = True
            os.eventfd_write(self._fd, 1)
            if not self._changed.wait_for(lambda: not self._sleepers, patience):
                return False
            if self._fd != -1:
                os.close(self._fd)
                self._fd = -1
            return True
