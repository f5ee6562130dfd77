"""Waits that can be ended from elsewhere, so that nothing is closed under a sleeper.

Closing a descriptor does not wake a thread that reads it, and its number may go to another file
while the thread is on its way into the kernel (close(2)). So nobody sleeps in a read or write
here, but in a poll of the descriptor together with an eventfd of ours, holding no lock.
"""

from __future__ import annotations

import os
import select
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, final

from probate.system import close_if_same, forget_in_forked_child, is_still, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from probate.system import FileIdentity


@final
class TimeLimit:
    """What is left of a timeout in seconds; None waits for ever.

    Raises TypeError or ValueError for what is no such number.
    """

    __slots__ = ("_over",)

    def __init__(self, timeout: float | None) -> None:
        if timeout is None:
            self._over = None
            return
        if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
            raise TypeError(f"a timeout is in seconds, or None for ever, got {timeout!r}")
        if not timeout >= 0:
            raise ValueError(f"a timeout is not negative, got {timeout!r}")
        self._over = time.monotonic() + timeout

    def left(self, at_most: float | None = None) -> float | None:
        """Seconds left, none of them beyond `at_most`; None is no limit."""
        if self._over is None:
            return at_most
        left = max(0.0, self._over - time.monotonic())
        return left if at_most is None else min(left, at_most)

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self._over is not None and time.monotonic() >= self._over


@final
class InterruptibleWait:
    """Count the threads inside something, let them wait there, and wake them at its end.

    `closed` makes the error that they get. Entered by `with`. In a forked child nobody is inside,
    and what was inherited can go on being used.
    """

    __slots__ = ("__weakref__", "_changed", "_closed", "_fd", "_identity", "_inside", "_is_closing")

    def __init__(self, closed: Callable[[], Exception]) -> None:
        self._closed = closed
        self._changed = threading.Condition(threading.Lock())
        #: An eventfd, made for the first who waits.
        self._fd = -1
        self._identity: FileIdentity | None = None
        self._inside = 0
        self._is_closing = False
        forget_in_forked_child(self)

    def __enter__(self) -> None:
        with self._changed:
            if self._is_closing:
                raise self._closed()
            self._inside += 1

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._inside -= 1
            if self._is_closing:
                self._changed.notify_all()

    def check(self) -> None:
        """Raise if it is closing."""
        if self._is_closing:
            raise self._closed()

    def wait(self, fd: int, events: int, timeout: float | None) -> bool:
        """Wait until `fd` (-1: none) has one of `events` or an error (poll(2)); False if not so.

        `timeout` is in seconds, None waits for ever. To be called inside. Raises if it closes.
        """
        with self._changed:
            self.check()
            if self._fd == -1:
                self._fd, self._identity = opened(
                    partial(os.eventfd, 0, os.EFD_CLOEXEC | os.EFD_NONBLOCK),
                    lambda owned: (owned.number, owned.identity),
                )
            wake = self._fd
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        if fd != -1:
            poll.register(fd, events)
        ready = poll.poll(None if timeout is None else timeout * 1000)
        self.check()
        return any(found != wake for found, _ in ready)

    def wake_waiters(self) -> None:
        """Let nobody in any more, and wake all who are inside."""
        with self._changed:
            self._is_closing = True
            # Whoever has closed its number elsewhere may have another's file there.
            if self._identity is not None and is_still(self._fd, self._identity):
                os.eventfd_write(self._fd, 1)

    def close(self, patience: float) -> bool:
        """Wait until all have left, `patience` seconds at most; False if they have not."""
        self.wake_waiters()
        with self._changed:
            if not self._changed.wait_for(lambda: not self._inside, patience):
                return False
            self._close_eventfd()
            return True

    def forget_parent(self) -> None:
        """Start with nobody inside, in a forked child: its parent's threads are not there."""
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        # A copy: the parent's own stays open, and must not be written to from here.
        self._close_eventfd()

    def _close_eventfd(self) -> None:
        if self._identity is not None:
            close_if_same(self._fd, self._identity)
        self._fd, self._identity = -1, None
