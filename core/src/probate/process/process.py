"""One process: an owner of resources, with or without an OS process behind it."""

from __future__ import annotations

import contextlib
import time
from typing import (
    TYPE_CHECKING,
    Any,
    NewType,
    ParamSpec,
    Protocol,
    TypeVar,
    final,
    overload,
)

from probate.models import NOTHING, CleanupResult, ProcessInfo, ProcessState
from probate.ownership.callback import Callback
from probate.process.context import CURRENT, be_as_before
from probate.process.pending import PendingResult, Run
from probate.system.interrupts import fell_in
from probate.system.log import logger

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import IO

    from probate.models import ResourceLimits, ResourceUsage
    from probate.orchestrator import ResourceOrchestrator
    from probate.outcome import Outcome, ResourceId

P = ParamSpec("P")
T = TypeVar("T")

#: Names a process; an int that its manager never issues twice.
Pid = NewType("Pid", int)


class OsChild(Protocol):
    """Stands for a spawned OS process, as the kind `processes` returns it."""

    @property
    def os_pid(self) -> int:
        """Return its pid, which no other OS process gets before this one is released."""

    @property
    def returncode(self) -> int | None:
        """Return how it ended, as subprocess puts it; None while it runs, or if nobody knows."""

    @property
    def exited(self) -> concurrent.futures.Future[int | None]:
        """Return a future of its return code, done when it has exited."""

    @property
    def stdin(self) -> IO[Any] | None:
        """Return our end of a pipe to it, with stdin=PIPE."""

    @property
    def stdout(self) -> IO[Any] | None:
        """Return our end of a pipe from it, with stdout=PIPE."""

    @property
    def stderr(self) -> IO[Any] | None:
        """Return our end of a pipe from it, with stderr=PIPE."""

    def send_signal(self, number: int) -> bool:
        """Send it a signal; return False if it is gone."""


class Manager(Protocol):
    """Creates and terminates processes: what they, and scopes, need of a ProcessManager."""

    orchestrator: ResourceOrchestrator

    def create_process(
        self,
        name: str,
        parent: int | Process | None = None,
        *,
        key: str | None = None,
        limits: ResourceLimits | None = None,
    ) -> Process:
        """Create a process."""

    def list_processes(self) -> list[ProcessInfo]:
        """List the processes that have not terminated yet."""

    def terminate_process(
        self, pid: int | Process, grace: float | None = None, *, with_leaks: bool = False
    ) -> CleanupResult:
        """Terminate a process."""

    async def terminate_process_async(
        self, pid: int | Process, grace: float | None = None, *, with_leaks: bool = False
    ) -> CleanupResult:
        """Terminate a process, without blocking the event loop."""


@final
class Process:
    """Owns resources, from `ProcessManager.create_process` to its termination."""

    __slots__ = (
        "__weakref__", "_below", "_child", "_children", "_manager", "_result", "_state",
        "created_at", "key", "name", "parent", "pid",
    )  # fmt: skip

    def __init__(
        self,
        manager: Manager,
        pid: Pid,
        name: str,
        parent: Process | None,
        key: str | None = None,
    ) -> None:
        self._manager = manager
        self.pid = pid
        self.name = name
        #: What it is known by outside this host, if it was created with one.
        self.key = key
        self.parent = parent
        #: Seconds since the epoch.
        self.created_at = time.time()
        # The manager's own: changed under its lock only.
        self._state = ProcessState.RUNNING
        self._children: dict[Pid, Process] = {}
        #: The sum of the accounts of those that it owns and that have ended with it.
        self._below = NOTHING
        self._child: OsChild | None = None
        self._result = PendingResult()

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.name!r} {self._state}>"

    @property
    def state(self) -> ProcessState:
        """Return where it stands on its way from RUNNING to TERMINATED."""
        return self._state

    @property
    def pending_result(self) -> PendingResult:
        """Return what its account is, or will be, found in. For its manager."""
        return self._result

    def is_managed_by(self, manager: Manager) -> bool:
        """Tell whether a manager has created it. For that manager's own."""
        return self._manager is manager

    def begin_termination(self, run: Run, loop: asyncio.AbstractEventLoop | None) -> None:
        """Be TERMINATING from here on, by `run`, on `loop` if on any. For its manager."""
        self._result.run, self._result.loop = run, loop
        self._state = ProcessState.TERMINATING

    def children(self) -> list[Process]:
        """List the processes that it owns and that have not terminated yet, oldest first."""
        return list(self._children.values())

    @property
    def result(self) -> CleanupResult | None:
        """Return the account of its termination; None until it is TERMINATED."""
        outcome = self._result.outcome
        return outcome if isinstance(outcome, CleanupResult) else None

    @property
    def os_pid(self) -> int | None:
        """Return the pid of the OS process behind it; None if there is none."""
        return None if self._child is None else self._child.os_pid

    @property
    def returncode(self) -> int | None:
        """Return how its OS process ended, as subprocess puts it: -9 is death by signal 9.

        None while it runs, if there is none, or if somebody else has reaped it.
        """
        return None if self._child is None else self._child.returncode

    @property
    def stdin(self) -> IO[Any] | None:
        """Return our end of the pipe to its OS process, with stdin=PIPE; termination closes it."""
        return None if self._child is None else self._child.stdin

    @property
    def stdout(self) -> IO[Any] | None:
        """Return our end of the pipe from its OS process, with stdout=PIPE; close it yourself."""
        return None if self._child is None else self._child.stdout

    @property
    def stderr(self) -> IO[Any] | None:
        """Return our end of the pipe from its OS process, with stderr=PIPE; close it yourself."""
        return None if self._child is None else self._child.stderr

    def send_signal(self, number: int) -> bool:
        """Send its OS process a signal; return False if it is gone, or there is none.

        Never reaches another process that got the same OS pid (pidfd_send_signal(2)).
        """
        return self._child is not None and self._child.send_signal(number)

    def set_child(self, child: OsChild) -> None:
        """Put an OS process behind it. Its manager calls this once, after spawning."""
        self._child = child

    def on_terminated(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when it is TERMINATED; at once, if it is already.

        By the thread that has terminated it, which is one of the manager's if its OS process has
        exited by itself. So it is to be short: `queue.put`, or `loop.call_soon_threadsafe`. What
        it raises is logged. Raises TypeError for what cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"expected what can be called, got {callback!r}")

        def call(_: object) -> None:
            try:
                callback()
            except Exception as error:
                if fell_in(error):
                    raise
                logger.exception("what was to be called at the end of %r failed", self)

        self._result.future.add_done_callback(call)

    def info(self) -> ProcessInfo:
        """Describe it as it is at this moment."""
        return ProcessInfo(
            pid=self.pid,
            name=self.name,
            state=self._state,
            parent=None if self.parent is None else self.parent.pid,
            created_at=self.created_at,
            os_pid=self.os_pid,
            returncode=self.returncode,
        )

    @overload
    def adopt(self, resource: object) -> ResourceId: ...
    @overload
    def adopt(
        self, resource: T, release: Callable[[T], object] | Callable[[], object]
    ) -> ResourceId: ...
    def adopt(self, resource: Any, release: Callable[..., object] | None = None) -> ResourceId:
        """Own an object that was made elsewhere; raises as `ResourceOrchestrator.adopt`.

        An object of no installed kind needs `release`: a function of the object, or its method.
        """
        if release is None:
            return self._manager.orchestrator.adopt(self.pid, resource)
        return self._manager.orchestrator.adopt(self.pid, resource, release)

    def callback(
        self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> ResourceId:
        """Have a function called when this process ends, as `contextlib.ExitStack.callback` does.

        Callbacks run newest first, before memory maps are released; a coroutine function runs on
        the event loop that runs here now, or on a new one. What it raises is an error of the
        account. Returns the id to `give_back` (call it now) or `disown` (never call it).
        """
        made = Callback(function, *args, **kwargs)
        return self._manager.orchestrator.adopt(self.pid, made)

    def give_back(self, thing: object) -> Outcome:
        """Release now an object, or an id, that it owns; as `ResourceOrchestrator.give_back`."""
        return self._manager.orchestrator.give_back(self.pid, thing)

    async def give_back_async(self, thing: object) -> Outcome:
        """Release as `give_back` does, without blocking the loop that a coroutine may need."""
        return await self._manager.orchestrator.give_back_async(self.pid, thing)

    def disown(self, thing: object) -> None:
        """Forget an object, or an id, without releasing it; as `ResourceOrchestrator.disown`."""
        self._manager.orchestrator.disown(self.pid, thing)

    def transfer(self, resource: object, to: Process) -> ResourceId:
        """Make `to` the owner of an object; raises as `ResourceOrchestrator.transfer`.

        And TypeError for what is no process.
        """
        if not isinstance(to, Process):
            raise TypeError(f"expected a Process, got {to!r}")
        return self._manager.orchestrator.transfer(self.pid, resource, to.pid)

    def current(self) -> AbstractContextManager[Process]:
        """Be the current process for the length of a `with` block, which does not end it.

        For working in its name where it was not created, on another thread for example: what is
        acquired without a pid is its own.
        """
        return working_for(self)

    def usage(self) -> dict[str, ResourceUsage]:
        """Count and list what it owns, by kind, in cleanup order."""
        return self._manager.orchestrator.usage(self.pid)

    def terminate(self, grace: float | None = None) -> CleanupResult:
        """Terminate it, as `ProcessManager.terminate_process`; also one that ended long ago."""
        return self._manager.terminate_process(self, grace)

    async def terminate_async(self, grace: float | None = None) -> CleanupResult:
        """Terminate it as `terminate` does, without blocking the event loop."""
        return await self._manager.terminate_process_async(self, grace)


@contextlib.contextmanager
def working_for(process: Process) -> Iterator[Process]:
    """Make a process the current one for the length of a `with` block."""
    token = CURRENT.set(process)
    try:
        yield process
    finally:
        be_as_before(token)
