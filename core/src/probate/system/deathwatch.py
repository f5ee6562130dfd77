"""DeathWatch: one thread that the kernel tells when processes exit, without polling."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Final, final

from probate.system.descriptor import OwnedDescriptor
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
class _Descriptors:
    """What one thread waits for: an epoll(7), and in it an eventfd(2) that wakes it.

    Programs that make themselves daemons close all numbers, whosever they are; the next files that
    they open have these.
    """

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.wake_number = -1
        try:
            self._own = OwnedDescriptor(self.epoll.fileno())
            self.wake_number = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._wake = OwnedDescriptor(self.wake_number)
            self.epoll.register(self.wake_number, select.EPOLLIN)
        except BaseException:
            self.epoll.close()
            if self.wake_number >= 0:
                os.close(self.wake_number)
            raise

    @property
    def are_ours(self) -> bool:
        """Tell whether nobody has closed them by their numbers: who closes one, closes all."""
        return self._wake.is_open

    def wake(self) -> None:
        """Have the thread look. They must be ours still."""
        os.eventfd_write(self.wake_number, 1)

    def close(self) -> None:
        """Close them, once, if they are ours still."""
        self._wake.close()
        if self._own.is_open:
            self.epoll.close()
        else:
            # As garbage, it would close the number, which is somebody else's.
            _lost.append(self.epoll)


_lost: Final[list[select.epoll]] = []


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
        self._descriptors: _Descriptors | None = None
        self._thread: threading.Thread | None = None
        self._inherited: list[object] = []
        forget_in_forked_child(self)

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Have `callback` called, once, on the watch's thread, when `fd` is readable.

        It must not block, since the other callbacks wait for it. Raises ValueError if `fd` is
        watched already, OSError if it cannot be.
        """
        with self._lock:
            self._forget_lost()
            if fd in self._callbacks or fd in self._due:
                raise ValueError(f"descriptor {fd} is watched already")
            self._callbacks[fd] = callback
            try:
                descriptors = self._descriptors or self._start()
                descriptors.epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
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
            if self._callbacks.pop(fd, None) is None or self._descriptors is None:
                return False
            _unregister(self._descriptors, fd)
            self._wake_if_idle()
        return True

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Have `callback` called, once, on the watch's thread, in so many seconds.

        For what the kernel announces to nobody. It must not block. Raises OSError if there are no
        descriptors for the watch.
        """
        timer = Timer(time.monotonic() + seconds)
        with self._lock:
            self._forget_lost()
            descriptors = self._descriptors or self._start()
            self._timers[timer] = callback
            # It may be waiting for a later moment.
            descriptors.wake()
        return timer

    def cancel(self, timer: Timer) -> None:
        """Do not call what a timer is for, unless that has begun."""
        with self._lock:
            if self._timers.pop(timer, None) is not None:
                self._wake_if_idle()

    def join_if_idle(self) -> None:
        """Wait until the thread is gone, if nothing is watched."""
        with self._lock:
            self._forget_lost()
            is_idle = not (self._callbacks or self._due or self._timers)
            thread = self._thread if is_idle else None
            if is_idle and self._descriptors is not None:
                # It ends, whoever watches again before it has seen that: they start another one.
                self._descriptors.wake()
                self._descriptors = None
        if thread is not None and thread is not threading.current_thread():
            join_thread(thread)

    def forget_parent(self) -> None:
        """Watch nothing, in a forked child, and leave the parent's epoll(7) as it is."""
        self._inherited.append(self._descriptors)
        self._lock = threading.RLock()
        self._callbacks = {}
        self._due = {}
        self._timers = {}
        self._descriptors = self._thread = None

    def _forget_lost(self) -> None:
        """Begin anew if the descriptors were closed by number: the thread hears of nothing more."""
        if self._descriptors is not None and not self._descriptors.are_ours:
            count = len(self._callbacks)
            logger.error("somebody has closed the watch's descriptors; %d are lost", count)
            self._callbacks.clear()
            self._descriptors = self._thread = None

    def _start(self) -> _Descriptors:
        descriptors = _Descriptors()
        before = self._thread
        # A daemon, since it must not keep the interpreter from exiting while processes live on.
        thread = threading.Thread(
            target=self._serve, args=(descriptors, before), name="probate-death-watch", daemon=True
        )
        self._descriptors, self._thread = descriptors, thread
        try:
            start_thread(thread)
        except BaseException:
            if thread.ident is None:
                self._descriptors, self._thread = None, before
                descriptors.close()
            raise
        return descriptors

    def _wake_if_idle(self) -> None:
        if not (self._callbacks or self._timers):
            self._forget_lost()
            if self._descriptors is not None:
                self._descriptors.wake()

    def _serve(self, descriptors: _Descriptors, before: threading.Thread | None) -> None:
        # Waits until something is ready, and takes nothing. That is done under the lock, so that
        # it is still watched then, and its number means no other file.
        ready = select.poll()
        ready.register(descriptors.epoll, select.POLLIN)
        try:
            while self._is_needed(descriptors):
                ready.poll(self._time_left())
                while (due := self._take(descriptors)) is not None:
                    _call(*due)
        except OSError:
            if descriptors.are_ours:
                raise
        finally:
            descriptors.close()
            # The thread before had nothing more to watch, and may not have ended yet. Whoever
            # joins this one has to find both ended.
            if before is not None:
                before.join()

    def _is_needed(self, descriptors: _Descriptors) -> bool:
        with self._lock:
            if not (self._callbacks or self._timers) and self._descriptors is descriptors:
                self._descriptors = None
            return self._descriptors is descriptors

    def _time_left(self) -> float | None:
        """Return the milliseconds until the next look at the timers; None if there are none."""
        with self._lock:
            if not self._timers:
                return None
            left = min(each.at for each in self._timers) - time.monotonic()
            return min(max(0.0, left), _MOST_SECONDS) * 1000

    def _take(self, descriptors: _Descriptors) -> tuple[str, Callable[[], object]] | None:
        """Take one descriptor that is ready, or timer that is due, with its callback, if any is."""
        with self._lock:
            if not self._due:
                self._begin_round(descriptors)
            for fd in self._due:
                return f"descriptor {fd}", self._due.pop(fd)
            now = time.monotonic()
            for timer in self._timers:
                if timer.at <= now:
                    return "a timer", self._timers.pop(timer)
        return None

    def _begin_round(self, descriptors: _Descriptors) -> None:
        self.round += 1
        for fd, _ in descriptors.epoll.poll(0):
            if fd == descriptors.wake_number:
                # Read it: something may be watched again by now, and it would be ready for ever.
                os.eventfd_read(fd)
                continue
            _unregister(descriptors, fd)
            callback = self._callbacks.pop(fd, None)
            if callback is not None:
                self._due[fd] = callback


def _unregister(descriptors: _Descriptors, fd: int) -> None:
    # One that was closed before it was forgotten must not keep the others from being watched.
    with contextlib.suppress(OSError):
        descriptors.epoll.unregister(fd)


def _call(what: str, callback: Callable[[], object]) -> None:
    try:
        callback()
    except BaseException:
        # Not even a SystemExit ends the thread: others wait for deaths as well.
        logger.exception("the watch's callback for %s failed", what)


#: The one watch of this interpreter, shared by all managers and plugins.
death_watch: Final = DeathWatch()
