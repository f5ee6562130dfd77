"""The task manager: starts tasks and calls that belong to a process."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import weakref
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final, overload

from probate import NotOwnedError, OwnershipTable, pid_or_current, runs_inline
from probate.system import checked_int, lazy_module, running_loop
from probate_tasks.adoption import job_of
from probate_tasks.call import ThreadCall
from probate_tasks.cancellation import Cancellation
from probate_tasks.loopcontext import required_loop
from probate_tasks.looptask import LoopTask
from probate_tasks.stoprequest import StopRequest
from probate_tasks.watch import Awaited, Watch
from probate_tasks.workers import Workers

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import Callable, Coroutine

    from probate import CleanupStats, Outcome, Process, ResourceId, ResourceUsage
    from probate_tasks.job import Job
    from probate_tasks.status import Native, TaskStatus
else:
    asyncio = lazy_module("asyncio")

T = TypeVar("T")

_MAY_BLOCK: Final = methodcaller("may_block")


@final
class AsyncTaskManager:
    """Starts native asyncio tasks, and calls in threads, each owned by one process.

    Every method takes the owner's pid first; within `with manager.process(...)` it may be left
    out. What has ended is forgotten on its own: a process owns what still runs. Until then it is
    held strongly, as the event loop itself does not.

    `max_threads` is how many calls of one process run at a time, by default as many as
    `concurrent.futures.ThreadPoolExecutor` would; the others wait in a queue of that process.

    Making anything raises ProcessTerminatedError, ProcessNotFoundError or ResourceLimitExceeded
    before it is made, and TypeError or ValueError for bad arguments.
    """

    def __init__(self, *, max_threads: int | None = None) -> None:
        if max_threads is None:
            max_threads = min(32, (os.cpu_count() or 1) + 4)
        #: Who owns which tasks and calls that have not ended.
        self.table: OwnershipTable[Job] = OwnershipTable(
            "tasks", self._release, release_many=_release_stopped, identity=attrgetter("native")
        )
        self._watch = Watch()
        self._workers = Workers(checked_int("max_threads", max_threads, least=1), self._serve)

    # -- making --------------------------------------------------------------

    @pid_or_current
    def spawn(
        self, pid: int, coro: Coroutine[Any, Any, T], name: str | None = None
    ) -> asyncio.Task[T]:
        """Run a coroutine as a task of the event loop that runs on this thread.

        Context variables are inherited, the current process among them (PEP 567). A coroutine
        that is refused is closed, so that it is not reported as never awaited.

        Raises TypeError for what is no coroutine, RuntimeError where no event loop runs.
        """
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"spawn takes a coroutine, as an async function returns, got {coro!r}")
        task: asyncio.Task[T] | None = None

        def make() -> LoopTask:
            nonlocal task
            task = loop.create_task(coro, name=name)
            job = LoopTask(task, task)
            # First in line, so that whoever awaits the task finds it forgotten already.
            job.when_over(self._end_of(pid, job))
            return job

        try:
            if name is not None and not isinstance(name, str):
                raise TypeError(f"a task's name must be a string, got {name!r}")
            loop = required_loop()
            job = self.table.acquire(pid, make, self._cancel)
        except BaseException:
            # Once there is a task, the coroutine is the task's to end.
            if task is None:
                coro.close()
            raise
        if job.is_over():
            # An eager task may have run to its end by now.
            self._on_end(pid, job)
        return cast("asyncio.Task[T]", job.native)

    @pid_or_current
    def submit(
        self, pid: int, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        """Call `fn(*args, **kwargs)` on a thread, in a copy of the caller's context variables.

        A function that runs cannot be stopped, only waited for; one that is still queued is
        cancelled with its owner. The future's callbacks run on that thread, or on the one that
        cancels it, and must not block. `pid` cannot be a keyword of `fn`.

        Raises TypeError for what is no function, or gives a coroutine; RuntimeError if no thread
        can be started.
        """
        if not callable(fn):
            raise TypeError(f"submit takes a function, got {fn!r}")
        if inspect.iscoroutinefunction(fn):
            raise TypeError(f"{fn!r} is no function for a thread: spawn what it returns")

        def make() -> ThreadCall:
            name = getattr(fn, "__qualname__", None) or repr(fn)
            call = ThreadCall(functools.partial(fn, *args, **kwargs), name)
            call.when_cancelled(functools.partial(self._when_cancelled, pid, weakref.ref(call)))
            return call

        call = self.table.acquire(pid, make, self._cancel)
        try:
            self._workers.enqueue(pid, call)
        except BaseException:
            # Nobody has its future, which an interrupt may have left locked.
            if self._workers.drop(pid, call):
                self._forget(pid, call)
            raise
        return call.future

    # -- asking, and giving back ---------------------------------------------

    @overload
    def status(self, /, pid: int | Process, task: Native | ResourceId) -> TaskStatus: ...
    @overload
    def status(self, task: Native, /) -> TaskStatus: ...
    @overload
    def status(self, /, pid: int | Process) -> dict[Native, TaskStatus]: ...
    @overload
    def status(self, /) -> dict[Native, TaskStatus]: ...
    @pid_or_current
    def status(
        self, pid: int, task: Native | ResourceId | None = None
    ) -> TaskStatus | dict[Native, TaskStatus]:
        """How far a task, call or future has come; without one, all that `pid` owns.

        A ResourceId needs a pid before it, since alone it would be taken for one. Of one that has
        ended, the native object still tells. asyncio takes the exception of a failed one for
        retrieved by this, and will not log it.

        Raises NotOwnedError for one that runs and belongs to another process.
        """
        if task is None:
            self._forget_silent(pid)
            return {job.native: job.status for _, job in self.table.owned(pid)}
        job = self._job(pid, task)
        if job is None:
            job = cast("Job", job_of(task, self._watch))
        return job.status

    @pid_or_current
    def cancel(self, pid: int, task: Native | ResourceId) -> bool:
        """Request cancellation, from any thread; whether there was anything to request.

        False for what is over, for a call that a thread is making, and for a task whose event
        loop is closed. Raises NotOwnedError if it is another process's.
        """
        job = self._job(pid, task)
        return job is not None and self._cancel(job)

    @pid_or_current
    def close(self, pid: int, task: Native | ResourceId) -> None:
        """Cancel a task, call or future, as the end of its owner would, and let go of it.

        Does nothing for what is over. Raises BusyResourceError, with its stack, while it runs
        on: it is owned until it has ended, and forgotten then. Raises NotOwnedError if it is
        another process's.
        """
        if (job := self._job(pid, task)) is None:
            return
        try:
            self.table.give_back(pid, job.native)
        except NotOwnedError:
            # Unless it has just ended, and was forgotten.
            if not job.is_over():
                raise
        finally:
            self._forget_ended(pid)

    # -- for the resource ------------------------------------------

    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        """Own what was made elsewhere, and runs, or will run, something later.

        That is a task or future of asyncio's, an executor's future, a `threading.Timer`, a handle
        of an event loop's `call_later`, an executor, a pool or a manager of `multiprocessing`. Of
        a future that stands in front of another (of `run_in_executor`, `wrap_future`,
        `run_coroutine_threadsafe`, an anyio portal) it is the one behind that counts. Returns None
        for anything else. Raises ValueError for what is over, and as `job_of`.
        """
        job = job_of(resource, self._watch)
        if job is None:
            return None
        if job.is_over():
            raise ValueError(f"done, so it cannot be adopted: {resource!r}")
        self._forget_silent(pid)
        resource_id = self.table.add(pid, job)
        job.when_over(self._end_of(pid, job))
        if isinstance(job, LoopTask) and not isinstance(job.future, asyncio.Task):
            self._follow(job)
        return resource_id

    def usage(self, pid: int) -> ResourceUsage:
        """Describe what `pid` owns, without what has ended and told nobody."""
        self._forget_silent(pid)
        return self.table.usage(pid)

    @runs_inline
    def quiesce(self, pid: int) -> list[StopRequest]:
        """Ask all that `pid` owns to cancel, each on its own loop; newest first.

        Inline, since only the thread that terminates can tell whether it is one of its own jobs.
        One future stands for all that there is use waiting for; another for the pools, which are
        asked when the rest has ended.
        """
        self._forget_silent(pid)
        jobs = self.table.resources(pid)
        cancellation = self._cancellation()
        first = [job for job in reversed(jobs) if not job.ends_last]
        request = self._ask(pid, first, cancellation)
        if len(first) == len(jobs):
            return request
        last = [job for job in reversed(jobs) if job.ends_last]
        if not request:
            return self._ask(pid, last, cancellation)
        # What those use that still end is not taken from under them.
        until_last = StopRequest(map(id, last), functools.partial(self._forget_ended, pid))

        def ask_last(_: object) -> None:
            for job in last:
                if not job.ask_to_stop(cancellation, until_last):
                    until_last.note_over(id(job))

        request[0].add_done_callback(ask_last)
        return [*request, until_last]

    def _ask(self, pid: int, jobs: list[Job], cancellation: Cancellation) -> list[StopRequest]:
        """Ask these to stop; return the one future that there is use waiting for, if any."""
        request = StopRequest(map(id, jobs), functools.partial(self._forget_ended, pid))
        is_of_use = False
        for job in jobs:
            if job.ask_to_stop(cancellation, request):
                is_of_use = True
            else:
                request.note_over(id(job))
        cancellation.finish()
        return [request] if is_of_use else []

    def may_block(self, pid: int) -> bool:
        """Whether the cleanup of `pid` may wait for code that is not ours, or for a thread."""
        return any(map(_MAY_BLOCK, self.table.resources(pid)))

    def cleanup(self, pid: int) -> CleanupStats:
        """Drop what has ended; what has not is BUSY, with its stack."""
        try:
            return self.table.cleanup(pid)
        finally:
            # One that ended while it was out of the table could not forget itself.
            self._forget_ended(pid)
            self._workers.join_idle(pid)

    # -- inside --------------------------------------------------------------

    def _job(self, pid: int, task: Native | ResourceId) -> Job | None:
        """The job of `pid` that is meant; None if it has ended, and is nobody's any more."""
        if isinstance(task, int):
            return self.table.get(pid, task)
        try:
            return self.table.get(pid, self.table.find(pid, task))
        except NotOwnedError as error:
            job = job_of(task, self._watch)
            if job is None:
                message = f"expected a task, a future or a ResourceId, got {task!r}"
                raise TypeError(message) from None
            if error.owner is None and job.is_over():
                return None
            raise

    def _cancellation(self) -> Cancellation:
        return Cancellation(self._is_owned, self._watch)

    def _follow(self, job: Job) -> None:
        """Note what is behind a future that is no task, which may be done before that is."""
        look = functools.partial(self._cancellation().follow, job, job.future)
        loop: asyncio.AbstractEventLoop = job.future.get_loop()
        if loop is running_loop():
            look()
        else:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(look)

    def _is_owned(self, native: object) -> bool:
        return self.table.owner_of(native) is not None

    def _cancel(self, job: Job) -> bool:
        cancellation = self._cancellation()
        is_requested = job.cancel(cancellation)
        cancellation.finish()
        return is_requested

    def _release(self, job: Job) -> Outcome:
        return job.release(self._cancellation())

    def _serve(self, pid: int, call: ThreadCall) -> None:
        """Make a call, on a thread of the workers."""
        try:
            call.run(functools.partial(self._on_return, pid, call))
        finally:
            self._on_end(pid, call)
            del call  # as in its `run`

    def _on_return(self, pid: int, call: ThreadCall) -> None:
        """Forget a call that has returned, before anybody learns of its result."""
        if not call.is_asked:
            self._forget(pid, call)

    def _end_of(self, pid: int, job: Job) -> Callable[[object], None]:
        """What is to be called when `job` is over."""
        # Weakly, since a concurrent future keeps its callbacks for as long as it is kept itself.
        return functools.partial(self._when_over, pid, weakref.ref(job))

    def _when_over(self, pid: int, reference: weakref.ref[Job], _: object) -> None:
        if (job := reference()) is not None:
            self._on_end(pid, job)

    def _when_cancelled(self, pid: int, reference: weakref.ref[ThreadCall], _: object) -> None:
        call = reference()
        if call is not None:
            if self._workers.withdraw(pid, call):
                call.confirm_cancelled()
            self._on_end(pid, call)

    def _on_end(self, pid: int, job: Job) -> None:
        """Forget a job that is over, unless a termination is to count it; on any thread."""
        if not job.is_over():
            # What it awaited goes on.
            return
        is_to_be_counted = job.is_asked and (not job.is_reported or job.is_awaited)
        if not (job.is_counted or is_to_be_counted):
            self._forget(pid, job)
        job.notify()

    def _forget_ended(self, pid: int, _: object = None) -> None:
        """Forget the jobs that are over, if no termination will look again and count them.

        After a cleanup, and when a termination is through: it holds its request until then.
        """
        for job in self.table.resources(pid):
            if job.is_reported and job.is_over() and not job.is_awaited:
                self._forget(pid, job)

    def _forget_silent(self, pid: int) -> None:
        """Forget what has ended and told nobody: timers and pools that others have ended."""
        for job in self.table.resources(pid):
            if job.is_silent and not job.is_asked and job.is_over():
                self.table.disown(pid, job.native)

    def _forget(self, pid: int, job: Job) -> None:
        if self.table.disown(pid, job.native) is None and job.is_kept and not job.is_counted:
            is_back = Awaited(lambda: job in self.table.resources(pid))
            self._watch.add(is_back, functools.partial(self._forget_ended, pid))


def _release_stopped(jobs: list[Job]) -> None:
    """Take off the end what has stopped when asked: all, as a rule."""
    while jobs:
        job = jobs[-1]
        if not job.is_asked or not job.is_over():
            return
        job.note_counted()
        jobs.pop()
