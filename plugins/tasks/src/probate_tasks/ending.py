"""What whoever asks jobs to stop waits for."""

from __future__ import annotations

import concurrent.futures
import contextlib
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, final

from probate.system.lazy import lazy_module

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from probate_tasks.job import Job
else:
    asyncio = lazy_module("asyncio")


@final
class Ending(concurrent.futures.Future[None]):
    """Resolved when all of these jobs are over, which are to be asked to stop.

    Whoever asked still cares, for as long as this is held.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        super().__init__()
        #: What the jobs keep of it.
        self.reference = weakref.ref(self)
        #: Jobs that are not over, by id. Only atomic operations of the set touch it: whoever
        #: makes it empty sees that it is.
        self._left = set(map(id, jobs))

    def note(self, job: Job) -> None:
        """Note that a job is over, or that there is no use waiting. On any thread; idempotent."""
        left = self._left
        if left:
            left.discard(id(job))
            if not left:
                with contextlib.suppress(concurrent.futures.InvalidStateError):
                    self.set_result(None)


@final
class LoopContext(NamedTuple):
    """The event loop that runs on this thread, if any, and the task that it runs just now."""

    loop: asyncio.AbstractEventLoop | None
    task: asyncio.Task[Any] | None

    @classmethod
    def find(cls) -> LoopContext:
        """Where this is called."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return cls(None, None)
        return cls(loop, asyncio.current_task(loop))
