"""Syncs in the background: a lane for each device, so that a disk that hangs holds up no other."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, final

from probate.system import CallThread, forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable


@final
class SyncLane:
    """Runs syncs one after another on a thread, and knows when one last began or ended.

    In a forked child it is empty.
    """

    def __init__(self) -> None:
        self.forget_parent()
        forget_in_forked_child(self)

    def __del__(self) -> None:
        # Idle, it would wait for ever for a lane that is gone.
        self._thread.abandon()

    def forget_parent(self) -> None:
        """Start afresh, without a thread."""
        self._lock = threading.Lock()
        self._thread = CallThread("probate-sync")
        #: Oldest first; those at the front may be done.
        self._futures: deque[concurrent.futures.Future[None]] = deque()
        #: On the monotonic clock.
        self._moved_at = 0.0

    def submit(self, sync: Callable[[], None]) -> concurrent.futures.Future[None]:
        """Start a sync when all before it have ended; return its future.

        Raises RuntimeError if no thread can be started, as at the interpreter's end.
        """

        def run() -> None:
            self._moved_at = time.monotonic()
            try:
                sync()
            finally:
                self._moved_at = time.monotonic()

        with self._lock:
            if self._is_idle():
                self._moved_at = time.monotonic()
            future = self._thread.submit(run)
            self._futures.append(future)
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
        """End the thread if it has nothing left to do, and wait until it is gone."""
        with self._lock:
            if self._is_idle():
                self._thread.close()

    def _is_idle(self) -> bool:
        while self._futures and self._futures[0].done():
            self._futures.popleft()
        return not self._futures
