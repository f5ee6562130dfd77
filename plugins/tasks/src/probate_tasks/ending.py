"""What whoever asks jobs to stop waits for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, final

if TYPE_CHECKING:
    from probate_tasks.job import Job


@final
class Ending(concurrent.futures.Future[None]):
    """Resolved when all jobs are over that were asked to stop together.

    Whoever asked still cares, for as long as this is held.
    """

    def __init__(self) -> None:
        super().__init__()
        #: What the jobs keep of it.
        self.reference = weakref.ref(self)
        #: Jobs that are not over, by id; and None, until all have been asked. Only atomic
        #: operations of the set touch it: whoever makes it empty sees that it is.
        self._left: set[int | None] = {None}

    def expect(self, job: Job) -> None:
        """Wait for a job, which is just being asked."""
        self._left.add(id(job))

    def note(self, job: Job | None) -> None:
        """Note that a job is over; None, that all have been asked. On any thread; idempotent."""
        left = self._left
        if left:
            left.discard(None if job is None else id(job))
            if not left:
                with contextlib.suppress(concurrent.futures.InvalidStateError):
                    self.set_result(None)


@final
class Here(NamedTuple):
    """The event loop that runs on this thread, if any, and the task that it runs just now."""

    loop: asyncio.AbstractEventLoop | None
    task: asyncio.Task[Any] | None

    @classmethod
    def find(cls) -> Here:
        """Where this is called."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return cls(None, None)
        return cls(loop, asyncio.current_task(loop))
