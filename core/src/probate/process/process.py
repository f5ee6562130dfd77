"""One process: an owner of resources, with or without an OS process behind it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NewType, ParamSpec, Protocol, TypeVar, final, overload

from probate.models import CleanupResult, ProcessInfo, ProcessState
from probate.ownership.callback import Callback
from probate.process.pending import PendingResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from probate.models import ResourceUsage
    from probate.orchestrator import ResourceOrchestrator
    from probate.outcome import Outcome, ResourceId
    from probate.process.child import OsChild

P = ParamSpec("P")
T = TypeVar("T")

#: Names a process; an int that its manager never issues twice.
Pid = NewType("Pid", int)


class Ender(Protocol):
    """Who can end processes: their manager."""

    orchestrator: ResourceOrchestrator

    def create_process(self, name: str, parent: int | Process | None = None) -> Process:
        """Create a process."""

    def list_processes(self) -> list[ProcessInfo]:
        """All that have not terminated yet."""

    def terminate(
        self, process: Process, grace: float | None = None, *, with_leaks: bool = False
    ) -> CleanupResult:
        """End a process."""

    async def terminate_async(
        self, process: Process, grace: float | None = None, *, with_leaks: bool = False
    ) -> CleanupResult:
        """End a process, without blocking the event loop."""


@final
class Process:
    """An owner. Made by `ProcessManager.create_process`, ended by `terminate_process`."""

    __slots__ = (
        "__weakref__", "_child", "_children", "_manager", "_result", "_state", "created_at",
        "name", "parent", "pid",
    )  # fmt: skip

    def __init__(self, manager: Ender, pid: Pid, name: str, parent: Process | None) -> None:
        self._manager = manager
        self.pid = pid
        self.name = name
        self.parent = parent
        #: Seconds since the epoch.
        self.created_at = time.time()
        # The manager's own: changed under its lock only.
        self._state = ProcessState.RUNNING
        self._children: dict[Pid, Process] = {}
        self._child: OsChild | None = None
        self._result = PendingResult()

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.name!r} {self._state}>"

    @property
    def state(self) -> ProcessState:
        """Where it stands on its way from RUNNING to TERMINATED."""
        return self._state

    @property
    def pending_result(self) -> PendingResult:
        """How its account reaches whoever waits for it."""
        return self._result

    @property
    def owns_processes(self) -> bool:
        """Whether there are any `children`."""
        return bool(self._children)

    def children(self) -> list[Process]:
        """Those that it owns and that have not terminated yet, oldest first."""
        return list(self._children.values())

    @property
    def result(self) -> CleanupResult | None:
        """The account of its termination; None until it is TERMINATED."""
        outcome = self._result.outcome
        return outcome if isinstance(outcome, CleanupResult) else None

    @property
    def os_pid(self) -> int | None:
        """The pid of the OS process behind it; None if there is none."""
        return None if self._child is None else self._child.os_pid

    @property
    def returncode(self) -> int | None:
        """How its OS process ended, as subprocess puts it: -9 is death by signal 9.

        None while it runs, if there is none, or if somebody else has reaped it.
        """
        return None if self._child is None else self._child.returncode

    @property
    def stdin(self) -> IO[bytes] | None:
        """Our end of the pipe to its OS process, with stdin=PIPE; closed when it is settled."""
        return None if self._child is None else self._child.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        """Our end of the pipe from its OS process, with stdout=PIPE; the caller's to close."""
        return None if self._child is None else self._child.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        """Our end of the pipe from its OS process, with stderr=PIPE; the caller's to close."""
        return None if self._child is None else self._child.stderr

    def send_signal(self, number: int) -> bool:
        """Send its OS process a signal; False if it is gone, or there is none.

        Never reaches another process that got its pid (pidfd_send_signal(2)).
        """
        return self._child is not None and self._child.send_signal(number)

    def set_child(self, child: OsChild) -> None:
        """Have an OS process behind it: its manager's to do, once."""
        self._child = child

    def on_terminated(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when it is TERMINATED; at once, if it is."""
        self._result.when_resolved(callback)

    def info(self) -> ProcessInfo:
        """What there is to say of it at this moment."""
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
        """Own an object that was made elsewhere, as `ResourceOrchestrator.adopt`.

        What no kind knows is given back by `release`, a function of the object or its method.
        """
        if release is None:
            return self._manager.orchestrator.adopt(self.pid, resource)
        return self._manager.orchestrator.adopt(self.pid, resource, release)

    def callback(
        self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> ResourceId:
        """Have a function called when this process ends, as `contextlib.ExitStack.callback` does.

        Newest first among themselves, before memory maps; a coroutine function on the event loop
        that runs here now, or on a new one. What it raises is an error of the account. Returns
        the id to `give_back` (call it now) or `disown` (never call it).
        """
        made = Callback(function, *args, **kwargs)
        return self._manager.orchestrator.adopt(self.pid, made)

    def give_back(self, thing: object) -> Outcome:
        """Release now an object, or an id, that this process owns; as `ResourceOrchestrator`'s."""
        return self._manager.orchestrator.give_back(self.pid, thing)

    async def give_back_async(self, thing: object) -> Outcome:
        """As `give_back`, without blocking the event loop, which coroutine releases may need."""
        return await self._manager.orchestrator.give_back_async(self.pid, thing)

    def disown(self, thing: object) -> None:
        """Forget an object, or an id, without releasing it; as `ResourceOrchestrator.disown`."""
        self._manager.orchestrator.disown(self.pid, thing)

    def transfer(self, resource: object, to: Process) -> ResourceId:
        """Make `to` the owner of an object; raises as `ResourceOrchestrator.transfer`."""
        return self._manager.orchestrator.transfer(self.pid, resource, to.pid)

    def usage(self) -> dict[str, ResourceUsage]:
        """What it owns, by kind, in cleanup order."""
        return self._manager.orchestrator.usage(self.pid)

    def terminate(self, grace: float | None = None) -> CleanupResult:
        """End it; as `ProcessManager.terminate_process`, however long ago it may have ended."""
        return self._manager.terminate(self, grace)

    async def terminate_async(self, grace: float | None = None) -> CleanupResult:
        """As `terminate`, without blocking the event loop."""
        return await self._manager.terminate_async(self, grace)
