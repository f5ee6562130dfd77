"""Cancelling tasks and futures, each on its own loop, having looked at what they await."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, final

from probate.system import lazy_module
from probate_tasks import stacks
from probate_tasks.following import look_behind, unfinished_members
from probate_tasks.loopcontext import LoopContext
from probate_tasks.work import ThreadWork, threads_at

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from probate_tasks.status import Future
    from probate_tasks.watch import Watch
    from probate_tasks.work import Work
else:
    asyncio = lazy_module("asyncio")


class Follower(Protocol):
    """What is to hear of the work that goes on behind a cancelled future: a job."""

    on_over: Callable[[object], object]

    def note_behind(self, work: Work, is_caller: bool) -> None:
        """Note that this goes on when the future is done, or is who asks."""


#: A job, and a future of it, or of what it awaits.
Followed: TypeAlias = "tuple[Follower, asyncio.Future[Any]]"


@final
class Cancellation:
    """The cancelling of one or many at a time, for whoever asks on this thread. Used once.

    Those of the loop that runs here are cancelled at once; those of others, and all that takes a
    look at the threads, when `finish` is called.
    """

    __slots__ = ("_elsewhere", "_is_owned", "_unexplained", "_watch", "asker", "here")

    def __init__(self, is_owned: Callable[[object], bool], watch: Watch) -> None:
        self._is_owned = is_owned
        self._watch = watch
        #: Where this is asked: nobody waits for himself.
        self.here = LoopContext.find()
        #: The thread that asks.
        self.asker = threading.get_ident()
        self._elsewhere: dict[asyncio.AbstractEventLoop, list[Followed]] = {}
        self._unexplained: list[Followed] = []

    def cancel(self, job: Follower, future: Future) -> bool:
        """Cancel the future of a job; False if it is done, or its loop is closed.

        A `gather` is done when one of its members fails: the others are cancelled then.
        """
        if future.done():
            members = [self.cancel(job, each) for each in unfinished_members(future)]
            return any(members)
        if not asyncio.isfuture(future) or (loop := future.get_loop()) is self.here.loop:
            return self._cancel(job, future, self._unexplained)
        if loop.is_closed():
            return False
        self._elsewhere.setdefault(loop, []).append((job, future))
        return True

    def finish(self) -> None:
        """Have the rest done."""
        self._look_at_threads(self._unexplained)
        for loop, jobs in self._elsewhere.items():
            # If it was closed meanwhile, it runs nothing any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._cancel_there, jobs)

    def follow(self, job: Follower, future: asyncio.Future[Any]) -> None:
        """Note what is behind a future; on its loop, or when that is closed."""
        unexplained: list[Followed] = []
        self._follow(job, future, unexplained)
        self._look_at_threads(unexplained)

    def _cancel_there(self, jobs: list[Followed]) -> None:
        unexplained: list[Followed] = []
        for job, future in jobs:
            self._cancel(job, future, unexplained)
        self._look_at_threads(unexplained)

    def _cancel(self, job: Follower, future: Future, unexplained: list[Followed]) -> bool:
        self._follow(job, future, unexplained)
        return future.cancel()

    def _follow(self, job: Follower, future: Future, unexplained: list[Followed]) -> None:
        behind = look_behind(future, self._is_owned)
        if behind is None:
            return
        for work in behind.work:
            job.note_behind(work, self._is_asker(work))
        unexplained.extend((job, promise) for promise in behind.promises)

    def _look_at_threads(self, unexplained: list[Followed]) -> None:
        """Find the threads that work for futures, now that these are cancelled."""
        if not unexplained:
            return
        found = threads_at(promise for _, promise in unexplained)
        for job, promise in unexplained:
            if (work := found.get(id(promise))) is not None:
                job.note_behind(work, self._is_asker(work))
                if isinstance(work, ThreadWork):
                    self._watch.add(work, job.on_over)

    def _is_asker(self, work: Work) -> bool:
        if isinstance(work, ThreadWork):
            return work.ident == self.asker
        if isinstance(work, asyncio.Future):
            return work is self.here.task
        return stacks.is_executor_call_of(self.asker, work)
