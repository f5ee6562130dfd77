"""What runs calls of others: executors, pools, and servers of `multiprocessing`."""

from __future__ import annotations

import concurrent.futures
import contextlib
import inspect
import threading
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

from probate import BusyResourceError, Outcome
from probate.system import CallThread, Future
from probate_tasks import stacks
from probate_tasks.job import Job
from probate_tasks.status import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from probate_tasks.cancellation import Cancellation
    from probate_tasks.stoprequest import StopRequest

#: Seconds that workers get to be gone, once they were told to terminate, or killed.
_TERMINATED_WITHIN: Final = 1.0
_KILLED_WITHIN: Final = 1.0


class PoolJob(Job):
    """A pool of workers: it takes nothing more, what runs is waited for, processes are killed."""

    __slots__ = ("_has_begun",)

    is_silent: ClassVar[bool] = True

    #: Tasks use pools, and so are asked to end before them.
    ends_last: ClassVar[bool] = True
    future: concurrent.futures.Future[None]

    def __init__(self, native: Any) -> None:
        super().__init__(native, Future())
        self._has_begun = False

    def __repr__(self) -> str:
        return f"{type(self.native).__name__}, {self.status}"

    @property
    def status(self) -> TaskStatus:
        """RUNNING until all its workers have ended."""
        return TaskStatus.DONE if self.is_over() else TaskStatus.RUNNING

    # -- what sorts of pool differ in -----------------------------------------

    @abstractmethod
    def end(self) -> None:
        """Have it take nothing more, and wait until it has ended; on a thread of its own."""

    @abstractmethod
    def processes(self) -> Iterable[Any]:
        """Its workers, as far as they are processes."""

    @abstractmethod
    def threads(self) -> Iterable[threading.Thread]:
        """Its workers, as far as they are threads."""

    def terminate(self) -> None:
        """Have its processes terminate, as far as it has a way of its own to."""

    # -- what they have in common ---------------------------------------------

    def when_over(self, callback: Callable[[object], None]) -> None:
        """Have `callback` called when it has ended; one that nobody asks to end tells nobody."""
        self.on_over = callback
        self.future.add_done_callback(callback)

    def ask_to_stop(self, cancellation: Cancellation, request: StopRequest | None = None) -> bool:
        """Have it take nothing more; False if there is no use waiting for it to end."""
        self.is_caller = self._is_worker(cancellation.asker)
        if self.is_over():
            return False
        self._note_asked(request)
        self.cancel(cancellation)
        if self.is_over():
            self.notify()
        return not self.is_caller

    def cancel(self, cancellation: Cancellation) -> bool:
        """Have it take nothing more; what it has not begun is cancelled, where that can be."""
        del cancellation
        if self._has_begun:
            return False
        self._has_begun = True
        thread = CallThread("probate-tasks-pool")
        try:
            ended = thread.submit(self.end)
        except RuntimeError:
            self._has_begun = False
            return False
        ended.add_done_callback(self._note_ended)
        thread.abandon()
        return True

    def is_running_here(self) -> bool:
        """Whether this thread is one of its workers."""
        return self._is_worker(threading.get_ident())

    def release_by_force(self, cancellation: Cancellation) -> Outcome:
        """Kill its processes; tell where its threads stand, which nobody can stop."""
        if not self._has_begun:
            self.cancel(cancellation)
        if list(self.processes()):
            self._terminate()
        elif not any(map(_is_busy, self.threads())):
            # Idle workers only have to learn of it.
            concurrent.futures.wait([self.future], _TERMINATED_WITHIN)
        if self.is_over():
            self.note_counted()
            return Outcome.RELEASED
        busy = [thread for thread in self.threads() if _is_busy(thread)]
        if busy:
            stack = stacks.of_worker(busy[0].ident or 0)
            raise BusyResourceError(f"{len(busy)} calls: {stacks.CANNOT_STOP}\n{stack}")
        raise BusyResourceError("its workers were told to end, and killed, and are not gone yet")

    def _is_worker(self, ident: int) -> bool:
        # An executor starts a thread first, and notes it then.
        return any(thread.ident == ident for thread in self.threads()) or stacks.is_worker_of(
            ident, self.native
        )

    def _terminate(self) -> None:
        killed = list(self.processes())
        thread = CallThread("probate-tasks-pool")
        with contextlib.suppress(RuntimeError):
            thread.submit(self.terminate)
        thread.abandon()
        concurrent.futures.wait([self.future], _TERMINATED_WITHIN)
        for process in [] if self.future.done() else {*killed, *self.processes()}:
            # It may have ended, and been closed, just now.
            with contextlib.suppress(ValueError, AttributeError, OSError):
                process.kill()
        concurrent.futures.wait([self.future], _KILLED_WITHIN)

    def _note_ended(self, ended: concurrent.futures.Future[None]) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            if (error := ended.exception()) is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)


@final
class ExecutorJob(PoolJob):
    """An executor, by what `concurrent.futures.Executor` can do."""

    __slots__ = ()

    def end(self) -> None:
        """Shut it down: what is queued is cancelled, what runs is waited for."""
        manager = self._manager_thread()
        shutdown = self.native.shutdown
        names = inspect.signature(shutdown).parameters
        shutdown(wait=True, **({"cancel_futures": True} if "cancel_futures" in names else {}))
        if manager is not None:
            # Whoever has shut it down before, without waiting, made it forget the thread.
            manager.join()

    def terminate(self) -> None:
        """Kill the processes at once: what they run has had the grace."""
        for process in self.processes():
            with contextlib.suppress(ValueError, AttributeError, OSError):
                process.kill()

    def processes(self) -> Iterable[Any]:
        """The processes of a `ProcessPoolExecutor`."""
        manager = self._manager_thread()
        found = getattr(self.native, "_processes", None) or getattr(manager, "processes", None)
        return list(found.values()) if isinstance(found, dict) else []

    def threads(self) -> Iterable[threading.Thread]:
        """The threads of a `ThreadPoolExecutor`."""
        found = getattr(self.native, "_threads", ())
        return list(found) if isinstance(found, (set, list, tuple)) else []

    def _manager_thread(self) -> threading.Thread | None:
        """The thread that serves a `ProcessPoolExecutor`; found again if it was shut down."""
        for thread in threading.enumerate():
            reference = getattr(thread, "executor_reference", None)
            if callable(reference) and reference() is self.native:
                return thread
        return None


@final
class WorkerPoolJob(PoolJob):
    """A `multiprocessing.Pool`, or ThreadPool, by what it can do."""

    __slots__ = ()

    def end(self) -> None:
        """Close it, and wait for what it was given, which cannot be taken back."""
        self.native.close()
        self.native.join()

    def terminate(self) -> None:
        """End its processes without waiting for what they run."""
        self.native.terminate()

    def processes(self) -> Iterable[Any]:
        """The processes of a `Pool`."""
        return [each for each in self._workers() if hasattr(each, "kill") and each.is_alive()]

    def threads(self) -> Iterable[threading.Thread]:
        """The threads of a `ThreadPool`."""
        return [each for each in self._workers() if isinstance(each, threading.Thread)]

    def _workers(self) -> list[Any]:
        return list(getattr(self.native, "_pool", None) or ())


@final
class ServerJob(PoolJob):
    """A manager of `multiprocessing`, and the process that keeps its objects."""

    __slots__ = ()

    def is_over(self) -> bool:
        """Whether its process is gone."""
        process = getattr(self.native, "_process", None)
        return process is None or not process.is_alive()

    def ask_to_stop(self, cancellation: Cancellation, request: StopRequest | None = None) -> bool:
        """Nothing is asked: whoever else is to end may use its objects until then."""
        del cancellation, request
        return False

    def end(self) -> None:
        """Shut its process down."""
        self.native.shutdown()

    def processes(self) -> Iterable[Any]:
        """Its one process."""
        return [] if self.is_over() else [self.native._process]  # noqa: SLF001  nothing else has it

    def threads(self) -> Iterable[threading.Thread]:
        """None of ours."""
        return ()


def _is_busy(thread: threading.Thread) -> bool:
    return thread.is_alive() and stacks.is_at_work(thread.ident or 0)
