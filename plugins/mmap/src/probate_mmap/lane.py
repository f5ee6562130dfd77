"""Syncs in the background: a lane for each device, so that a disk that hangs holds up no other."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from typing import TYPE_CHECKING, final

from probate.system import CallThread, forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable


@final
class SyncLane:
    """Runs syncs one after another on a thread, and knows when one last began or ended.

    The thread ends when there is nothing left to sync. In a forked child the lane is empty.
    """

    def __init__(self) -> None:
        self.forget_parent()
        forget_in_forked_child(self)

    def forget_parent(self) -> None:
        """Start afresh, without a thread."""
        self._lock = threading.Lock()
        self._thread = CallThread("probate-sync")
        #: How many syncs have yet to end.
        self._left = 0
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
                self._count_down()

        with self._lock:
            if not self._left:
                self._moved_at = time.monotonic()
            self._left += 1
            try:
                future = self._thread.begin(run)
            except BaseException:
                self._left -= 1
                raise
            interrupt, self._thread.interrupt = self._thread.interrupt, None
        if interrupt is not None:
            raise interrupt
        return future

    def wait(self, future: concurrent.futures.Future[None], timeout: float) -> bool:
        """Wait for a sync; False if nothing at all has moved here for `timeout` seconds."""
        while not future.done():
            left = self._moved_at + timeout - time.monotonic()
            if left <= 0:
                return False
            concurrent.futures.wait([future], left)
        return True

    def _count_down(self) -> None:
        self._moved_at = time.monotonic()
        with self._lock:
            self._left -= 1
            if not self._left:
                self._thread.abandon()
