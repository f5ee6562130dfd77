"""Jobs that end after a cleanup has found them busy, in a termination that is not yet through.

It will look again, after other kinds have been released, and must find them over to count them.
So they are not forgotten at once, but as soon as that termination has counted them or is through.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, final

from probate import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate_tasks.job import Job

#: Seconds that a termination gets to look again.
_RECOUNT_TIME: Final = 1.0

#: Seconds between two looks whether it has.
_PAUSE: Final = 0.005


@final
class LateEnders:
    """Calls `forget` for each job, with the pid it came with, when its time has come.

    A thread does so, for as long as there is one to be forgotten.
    """

    def __init__(self, forget: Callable[[int, Job], None]) -> None:
        self._forget = forget
        self.forget_parent()
        forget_in_forked_child(self)

    def forget_parent(self) -> None:
        """Wait for nothing, in a forked child."""
        self._lock = threading.Lock()
        self._look = threading.Event()
        #: With the moment, by the monotonic clock, at which patience ends.
        self._jobs: list[tuple[int, Job, float]] = []
        self._thread: threading.Thread | None = None

    def add(self, pid: int, job: Job) -> None:
        """Forget `job` when the termination that asked it to stop has no more use for it."""
        with self._lock:
            self._jobs.append((pid, job, time.monotonic() + _RECOUNT_TIME))
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._watch, name="probate-tasks-late", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self._jobs.pop()
            else:
                self._thread = thread
                return
        # With no thread to be had, forgotten counts for more than counted.
        self._forget(pid, job)

    def see_out(self) -> None:
        """End the thread, if all that it waited for has been counted."""
        with self._lock:
            thread = self._thread
            if thread is None or not all(job.is_settled for _, job, _ in self._jobs):
                return
        self._look.set()
        thread.join(_RECOUNT_TIME)

    def _watch(self) -> None:
        while True:
            self._look.wait(_PAUSE)
            self._look.clear()
            with self._lock:
                jobs, self._jobs = self._jobs, []
            now = time.monotonic()
            waiting = []
            for pid, job, deadline in jobs:
                if job.is_awaited and not job.is_settled and now < deadline:
                    waiting.append((pid, job, deadline))
                else:
                    self._forget(pid, job)
            with self._lock:
                self._jobs += waiting
                if not self._jobs:
                    self._thread = None
                    return
