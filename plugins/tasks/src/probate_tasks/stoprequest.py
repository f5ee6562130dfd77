"""A request that jobs stop, and the future that tells when they have."""

from __future__ import annotations

import concurrent.futures
import contextlib
import weakref
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@final
class StopRequest(concurrent.futures.Future[None]):
    """Done when all jobs with these ids are over.

    Jobs refer to it weakly: whoever asked still waits for as long as this is held. `on_dropped`
    is called, with the dead reference, when it is held no more, if a job was asked by it.
    """

    def __init__(
        self, ids: Iterable[int], on_dropped: Callable[[weakref.ref[StopRequest]], object]
    ) -> None:
        super().__init__()
        #: What the jobs keep of it.
        self.reference = weakref.ref(self, on_dropped)
        #: Jobs that are not over. Only atomic operations of the set touch it: whoever makes it
        #: empty sees that it is.
        self._running = set(ids)

    def note_over(self, job_id: int) -> None:
        """Note that a job is over, or that there is no use waiting. On any thread; idempotent."""
        running = self._running
        if running:
            running.discard(job_id)
            if not running:
                with contextlib.suppress(concurrent.futures.InvalidStateError):
                    self.set_result(None)
