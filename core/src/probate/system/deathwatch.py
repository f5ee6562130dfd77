"""One thread that is told by the kernel when processes exit; no polling."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from typing import TYPE_CHECKING, Final, final

from probate.system.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("probate")


@final
class DeathWatch:
    """Calls back once for each descriptor that becomes readable, such as a pidfd.

    All descriptors are in one epoll(7), with one thread, which exists while anything is watched.
    In a forked child nothing is watched.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._callbacks: dict[int, Callable[[], object]] = {}
        #: Those that were ready when the round began, and are yet to be called.
        self._due: dict[int, Callable[[], object]] = {}
        #: Counts the rounds. All that are called in one were ready when it began: what a callback
        #: learns of the dead of its round holds for the others of that round as well.
        self.round = 0
        self._epoll: select.epoll | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._inherited: list[object] = []
        forget_in_forked_child(self)

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Have `callback` called on the watch's thread, once, when `fd` is readable.

        It must not block: others wait for theirs. Raises ValueError if `fd` is watched already,
        OSError if it cannot be.
        """
        with self._lock:
            if fd in self._callbacks or fd in self._due:
                raise ValueError(f"descriptor {fd} is watched already")
            epoll = self._epoll or self._start()
            self._callbacks[fd] = callback
            try:
                epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
            except BaseException:
                del self._callbacks[fd]
                self._wake_if_idle()
                raise

    def forget(self, fd: int) -> bool:
        """Watch `fd` no more, before it is closed; False if it was not watched.

        Its callback is not called from here on; it may be running, seen from another thread.
        """
        with self._lock:
            if self._due.pop(fd, None) is not None:
                return True
            if self._callbacks.pop(fd, None) is None or self._epoll is None:
                return False
            _unregister(self._epoll, fd)
            self._wake_if_idle()
        return True

    def join_if_idle(self) -> None:
        """Wait until the thread is gone, if nothing is watched."""
        with self._lock:
            thread = None if self._callbacks or self._due else self._thread
        if thread is not None and thread is not threading.current_thread():
            # Whoever watches again meanwhile starts another one.
            thread.join()

    def forget_parent(self) -> None:
        """Watch nothing, in a forked child, and leave the parent's epoll as it is."""
        self._inherited.append(self._epoll)
        self._lock = threading.RLock()
        self._callbacks = {}
        self._due = {}
        self._epoll = self._thread = None

    def _start(self) -> select.epoll:
        epoll = select.epoll()
        try:
            wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except BaseException:
            epoll.close()
            raise
        epoll.register(wake, select.EPOLLIN)
        before = self._thread
        # A daemon: it must not keep the interpreter from exiting while processes live on.
        thread = threading.Thread(
            target=self._serve, args=(epoll, wake, before), name="probate-death-watch", daemon=True
        )
        self._epoll, self._wake, self._thread = epoll, wake, thread
        try:
            thread.start()
        except BaseException:
            self._epoll, self._thread = None, before
            epoll.close()
            os.close(wake)
            raise
        return epoll

    def _wake_if_idle(self) -> None:
        if not self._callbacks and self._epoll is not None:
            os.eventfd_write(self._wake, 1)

    def _serve(self, epoll: select.epoll, wake: int, before: threading.Thread | None) -> None:
        # Waits until something is ready, and takes nothing: what is ready is taken under the lock,
        # so that it is still watched then, and no other file by its number.
        something = select.poll()
        something.register(epoll, select.POLLIN)
        try:
            while self._is_needed(epoll):
                something.poll()
                while (due := self._take(epoll, wake)) is not None:
                    _call(*due)
        finally:
            epoll.close()
            os.close(wake)
            # One that had nothing to watch, and may be about to be gone: who joins us joins it.
            if before is not None:
                before.join()

    def _is_needed(self, epoll: select.epoll) -> bool:
        with self._lock:
            if not self._callbacks and self._epoll is epoll:
                self._epoll = None
            return self._epoll is epoll

    def _take(self, epoll: select.epoll, wake: int) -> tuple[int, Callable[[], object]] | None:
        """One descriptor that is ready, watched no more from here on; None if there is none."""
        with self._lock:
            if not self._due:
                self._begin_round(epoll, wake)
            for fd in self._due:
                return fd, self._due.pop(fd)
        return None

    def _begin_round(self, epoll: select.epoll, wake: int) -> None:
        self.round += 1
        for fd, _ in epoll.poll(0):
            if fd == wake:
                # Read, or it would be ready for ever if something is watched again by now.
                os.eventfd_read(wake)
                continue
            _unregister(epoll, fd)
            callback = self._callbacks.pop(fd, None)
            if callback is not None:
                self._due[fd] = callback


def _unregister(epoll: select.epoll, fd: int) -> None:
    # Closed too early, against the rules, it is no reason to leave the others unwatched.
    with contextlib.suppress(OSError):
        epoll.unregister(fd)


def _call(fd: int, callback: Callable[[], object]) -> None:
    try:
        callback()
    except BaseException:
        # Not even a SystemExit ends the watch: the others' processes die as well.
        logger.exception("the callback of watched descriptor %d failed", fd)


#: The one watch of this OS process: whose processes they are is not its concern.
death_watch: Final = DeathWatch()
