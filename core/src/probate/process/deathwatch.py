"""One thread that is told by the kernel when processes exit; no polling."""

from __future__ import annotations

import logging
import os
import select
import threading
from typing import TYPE_CHECKING, Final, final

from probate.forking import forget_in_forked_child

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
            if fd in self._callbacks:
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

        Its callback may be running, if it is called from another thread.
        """
        with self._lock:
            if self._callbacks.pop(fd, None) is None or self._epoll is None:
                return False
            self._epoll.unregister(fd)
            self._wake_if_idle()
        return True

    def join_if_idle(self) -> None:
        """Wait until the thread is gone, if nothing is watched."""
        with self._lock:
            thread = None if self._callbacks else self._thread
        if thread is not None and thread is not threading.current_thread():
            # Whoever watches again meanwhile starts another one.
            thread.join()

    def forget_parent(self) -> None:
        """Watch nothing, in a forked child, and leave the parent's epoll as it is."""
        self._inherited.append(self._epoll)
        self._lock = threading.RLock()
        self._callbacks = {}
        self._epoll = self._thread = None

    def _start(self) -> select.epoll:
        epoll = select.epoll()
        try:
            wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except BaseException:
            epoll.close()
            raise
        epoll.register(wake, select.EPOLLIN)
        # A daemon: it must not keep the interpreter from exiting while processes live on.
        thread = threading.Thread(
            target=self._serve, args=(epoll, wake), name="probate-death-watch", daemon=True
        )
        self._epoll, self._wake, self._thread = epoll, wake, thread
        try:
            thread.start()
        except BaseException:
            self._epoll = self._thread = None
            epoll.close()
            os.close(wake)
            raise
        return epoll

    def _wake_if_idle(self) -> None:
        if not self._callbacks and self._epoll is not None:
            os.eventfd_write(self._wake, 1)

    def _serve(self, epoll: select.epoll, wake: int) -> None:
        try:
            while True:
                ready = epoll.poll()
                for fd, _ in ready:
                    self._call(epoll, fd)
                with self._lock:
                    if not self._callbacks and self._epoll is epoll:
                        self._epoll = None
                    if self._epoll is not epoll:
                        return
        finally:
            epoll.close()
            os.close(wake)

    def _call(self, epoll: select.epoll, fd: int) -> None:
        with self._lock:
            callback = self._callbacks.pop(fd, None)
            if callback is None:
                return
            epoll.unregister(fd)
        try:
            callback()
        except Exception:
            logger.exception("the callback of watched descriptor %d failed", fd)


#: The one watch of this OS process: whose processes they are is not its concern.
death_watch: Final = DeathWatch()
