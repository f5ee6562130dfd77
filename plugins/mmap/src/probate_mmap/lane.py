"""Syncs in the background: a lane for each device, so that a disk that hangs holds up no other."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, final

from probate import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that a thread without work gets to be gone; it may have been given some meanwhile.
_FAREWELL: Final = 0.1


@final
class SyncLane:
    """Runs syncs one after another, on a daemon thread that ends with the last one.

    A daemon, since a sync that hangs must not keep the interpreter from exiting. In a forked
    child it is empty.
    """

    def __init__(self) -> None:
        self.forget_parent()
        forget_in_forked_child(self)

    def forget_parent(self) -> None:
        """Start afresh, without a thread."""
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], None], concurrent.futures.Future[None]]] = deque()
        self._thread: threading.Thread | None = None
        self._is_serving = False
        self._is_syncing = False
        #: When a sync last began or ended, on the monotonic clock.
        self._moved_at = 0.0

    def submit(self, sync: Callable[[], None]) -> concurrent.futures.Future[None]:
        """Start a sync when all before it have ended; return its future.

        Raises RuntimeError if no thread can be started, as at the interpreter's end.
        """
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._lock:
            if not self._is_serving:
                thread = threading.Thread(target=self._serve, name="probate-sync", daemon=True)
                # Waits for the thread to run, which then waits for this lock.
                thread.start()
                self._thread, self._is_serving = thread, True
                self._moved_at = time.monotonic()
            self._waiting.append((sync, future))
        return future

    def wait(self, future: concurrent.futures.Future[None], timeout: float) -> bool:
        """Wait for a sync; False if nothing at all has moved here for `timeout` seconds."""
        while not future.done():
            left = self._moved_at + timeout - time.monotonic()
            if left <= 0:
                return False
            concurrent.futures.wait([future], left)
        return True

    def join_if_idle(self) -> None:
        """If the thread has nothing left to do, wait until it is gone."""
        with self._lock:
            thread = None if self._is_syncing or self._waiting else self._thread
        if thread is not None:
            thread.join(_FAREWELL)

    def _serve(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_serving = False
                    return
                sync, future = self._waiting.popleft()
                self._is_syncing = True
                self._moved_at = time.monotonic()
            error: BaseException | None = None
            if future.set_running_or_notify_cancel():
                try:
                    sync()
                except BaseException as raised:
                    error = raised
            with self._lock:
                self._is_syncing = False
                self._moved_at = time.monotonic()
            if not future.cancelled():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
