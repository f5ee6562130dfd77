"""DeathWatch: one thread that the kernel tells when processes exit, without polling."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Final, final

from probate.system.exiting import join_thread
from probate.system.forking import forget_in_forked_child
from probate.system.interrupts import start_thread
from probate.system.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that it waits for a timer at a time: poll(2) takes no more milliseconds than an int.
_MOST_SECONDS: Final = 86_400.0


@final
class Timer:
    """Names one call that is to be made later."""

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        #: On the monotonic clock.
        self.at = at


@final
class DeathWatch:
    """Calls a callback, once, when the descriptor that it is for becomes readable: a pidfd.

    All descriptors are in one epoll(7), with one thread, which exists while anything is watched
    or to be called later. A forked child watches nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._callbacks: dict[int, Callable[[], object]] = {}
        #: The callbacks of descriptors that were ready when the round began, yet to be called.
        self._due: dict[int, Callable[[], object]] = {}
        #: What is to be called later, and when, on the monotonic clock.
        self._timers: dict[Timer, Callable[[], object]] = {}
        #: The number of the round. All descriptors of one were ready when it began, so that what
        #: a callback learns of the dead of its round holds for the others of it as well.
        self.round = 0
        self._epoll: select.epoll | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._inherited: list[object] = []
        forget_in_forked_child(self)

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Have `callback` called, once, on the watch's thread, when `fd` is readable.

        It must not block, since the other callbacks wait for it. Raises ValueError if `fd` is
        watched already, OSError if it cannot be.
        """
        with self._lock:
            if fd in self._callbacks or fd in self._due:
                raise ValueError(f"descriptor {fd} is watched already")
            self._callbacks[fd] = callback
            try:
                epoll = self._epoll or self._start()
                epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
            except BaseException:
                del self._callbacks[fd]
                self._wake_if_idle()
                raise

    def forget(self, fd: int) -> bool:
        """Stop watching `fd`, before it is closed; return False if it was not watched.

        Its callback is not called from here on; on another thread, it may be running just now.
        """
        with self._lock:
            if self._due.pop(fd, None) is not None:
                return True
            if self._callbacks.pop(fd, None) is None or self._epoll is None:
                return False
            _unregister(self._epoll, fd)
            self._wake_if_idle()
        return True

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Have `callback` called, once, on the watch's thread, in so many seconds.

        For what the kernel announces to nobody. It must not block. Raises OSError if there are no
        descriptors for the watch.
        """
        timer = Timer(time.monotonic() + seconds)
        with self._lock:
            if self._epoll is None:
                self._start()
            self._timers[timer] = callback
            # It may be waiting for a later moment.
            os.eventfd_write(self._wake, 1)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Do not call what a timer is for, unless that has begun."""
        with self._lock:
            if self._timers.pop(timer, None) is not None:
                self._wake_if_idle()

    def join_if_idle(self) -> None:
        """Wait until the thread is gone, if nothing is watched."""
        with self._lock:
            is_idle = not (self._callbacks or self._due or self._timers)
            thread = self._thread if is_idle else None
            if is_idle and self._epoll is not None:
                # It ends, whoever watches again before it has seen that: they start another one.
                os.eventfd_write(self._wake, 1)
                self._epoll = None
        if thread is not None and thread is not threading.current_thread():
            join_thread(thread)

    def forget_parent(self) -> None:
        """Watch nothing, in a forked child, and leave the parent's epoll(7) as it is."""
        self._inherited.append(self._epoll)
        self._lock = threading.RLock()
        self._callbacks = {}
        self._due = {}
        self._timers = {}
        self._epoll = self._thread = None

    def _start(self) -> select.epoll:
        epoll = select.epoll()
        try:
            wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except BaseException:
            epoll.close()
            raise
        before = self._thread
        # A daemon, since it must not keep the interpreter from exiting while processes live on.
        thread = threading.Thread(
            target=self._serve, args=(epoll, wake, before), name="probate-death-watch", daemon=True
        )
        self._epoll, self._wake, self._thread = epoll, wake, thread
        try:
            epoll.register(wake, select.EPOLLIN)
            start_thread(thread)
        except BaseException:
            if thread.ident is None:
                self._epoll, self._thread = None, before
                epoll.close()
                os.close(wake)
            raise
        return epoll

    def _wake_if_idle(self) -> None:
        if not (self._callbacks or self._timers) and self._epoll is not None:
            os.eventfd_write(self._wake, 1)

    def _serve(self, epoll: select.epoll, wake: int, before: threading.Thread | None) -> None:
        # Waits until something is ready, and takes nothing. That is done under the lock, so that
        # it is still watched then, and its number means no other file.
        ready = select.poll()
        ready.register(epoll, select.POLLIN)
        try:
            while self._is_needed(epoll):
                ready.poll(self._time_left())
                while (due := self._take(epoll, wake)) is not None:
                    _call(*due)
        finally:
            epoll.close()
            os.close(wake)
            # The thread before had nothing more to watch, and may not have ended yet. Whoever
            # joins this one has to find both ended.
            if before is not None:
                before.join()

    def _is_needed(self, epoll: select.epoll) -> bool:
        with self._lock:
            if not (self._callbacks or self._timers) and self._epoll is epoll:
                self._epoll = None
            return self._epoll is epoll

    def _time_left(self) -> float | None:
        """Return the milliseconds until the next look at the timers; None if there are none."""
        with self._lock:
            if not self._timers:
                return None
            left = min(each.at for each in self._timers) - time.monotonic()
            return min(max(0.0, left), _MOST_SECONDS) * 1000

    def _take(self, epoll: select.epoll, wake: int) -> tuple[str, Callable[[], object]] | None:
        """Take one descriptor that is ready, or timer that is due, with its callback, if any is."""
        with self._lock:
            if not self._due:
                self._begin_round(epoll, wake)
            for fd in self._due:
                return f"descriptor {fd}", self._due.pop(fd)
            now = time.monotonic()
            for timer in self._timers:
                if timer.at <= now:
                    return "a timer", self._timers.pop(timer)
        return None

    def _begin_round(self, epoll: select.epoll, wake: int) -> None:
        self.round += 1
        for fd, _ in epoll.poll(0):
            if fd == wake:
                # Read it: something may be watched again by now, and it would be ready for ever.
                os.eventfd_read(wake)
                continue
            _unregister(epoll, fd)
            callback = self._callbacks.pop(fd, None)
            if callback is not None:
                self._due[fd] = callback


def _unregister(epoll: select.epoll, fd: int) -> None:
    # One that was closed before it was forgotten must not keep the others from being watched.
    with contextlib.suppress(OSError):
        epoll.unregister(fd)


def _call(what: str, callback: Callable[[], object]) -> None:
    try:
        callback()
    except BaseException:
        # Not even a SystemExit ends the thread: others wait for deaths as well.
        logger.exception("the watch's callback for %s failed", what)


#: The one watch of this interpreter, shared by all managers and plugins.
death_watch: Final = DeathWatch()
