"""The process manager: issues pids, knows the tree, ends each process once, keeps the account."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Self, Unpack, final

from probate.errors import ProcessNotFoundError, ProcessTerminatedError
from probate.models import CleanupResult, ProcessState, nothing_of
from probate.orchestrator import checked_seconds, registry_of
from probate.plugins.registry import NO_KINDS
from probate.process.builder import ProcessManagerBuilder
from probate.process.history import TerminationHistory
from probate.process.order import (
    check_not_terminating_here,
    in_order,
    terminate_in_order,
    terminating_here,
    terminations_elsewhere,
)
from probate.process.pending import PendingResult
from probate.process.process import Pid, Process
from probate.process.scope import ProcessScope
from probate.process.spawning import Spawner, SpawnOptions
from probate.system.forking import forget_in_forked_child
from probate.termination.steps import Termination
from probate.termination.waiting import RunResult, Wait, run, run_async

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from probate.models import CleanupStats, ProcessInfo, ResourceLimits
    from probate.plugins.registry import KindsInUse
    from probate.process.argv import Argument
    from probate.process.builder import ManagerOptions


@final
class ProcessManager:
    """Owners of resources, and their end. Made by `ProcessManager.builder()`.

    A context manager, sync and async: leaving it terminates all. Thread-safe. In a forked child
    it has no processes.
    """

    def __init__(self, options: ManagerOptions) -> None:
        self.orchestrator = options.orchestrator
        self._registry = registry_of(self.orchestrator)
        self._admission = self._registry.admission
        self._grace = options.grace
        self._deadline = options.deadline
        self._limits = options.limits
        self._lock = threading.RLock()
        self._processes: dict[Pid, Process] = {}
        self._history = TerminationHistory(self.orchestrator)
        #: On which event loop a process that is TERMINATING is being ended, if on any.
        self._ender_loops: dict[Pid, asyncio.AbstractEventLoop | None] = {}
        self._is_closed = False
        self.orchestrator.check_pending()
        # Whatever is owned by plain keys so far must not fall to a process of ours.
        self._after = max(self._registry.owners(), default=0)
        self._spawner = Spawner(self, self._withdraw, options.scheduling, options.has_status)
        self._admission.claim(self, after=self._after, record_sites=options.record_sites)
        self._spawner.open()
        forget_in_forked_child(self)

    @staticmethod
    def builder() -> ProcessManagerBuilder[ProcessManager]:
        """Start with the options of a new manager."""
        return ProcessManagerBuilder(ProcessManager)

    def __repr__(self) -> str:
        return f"<ProcessManager, running: {len(self._processes)}>"

    # -- processes -----------------------------------------------------------

    def create_process(
        self,
        name: str,
        parent: int | Process | None = None,
        *,
        limits: ResourceLimits | None = None,
    ) -> Process:
        """Create a process, owned by process `parent` if given; it ends with its parent.

        `limits` are this process's own, instead of the manager's. Raises ProcessNotFoundError or
        ProcessTerminatedError for the parent, TypeError for a name that is no string, and
        RuntimeError if the manager is closed.
        """
        if not isinstance(name, str):
            raise TypeError(f"a process's name must be a string, got {name!r}")
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the process manager is closed: it creates no more processes")
            if isinstance(parent, Process):
                parent = parent.pid
            owner = None if parent is None else self._get(parent)
            if owner is not None and owner.state is not ProcessState.RUNNING:
                raise ProcessTerminatedError(owner.pid)
            pid = Pid(self._admission.issue(limits or self._limits))
            process = Process(self, pid, name, owner)
            self._processes[pid] = process
            if owner is not None:
                owner._children[pid] = process
        return process

    def spawn(
        self,
        argv: Sequence[Argument],
        name: str | None = None,
        parent: int | Process | None = None,
        *,
        limits: ResourceLimits | None = None,
        **options: Unpack[SpawnOptions],
    ) -> Process:
        """Start an OS process, in a session of its own, and a process that owns it.

        It is settled when it dies, with all that descends from it, without anybody calling.
        `name` is the program's by default. `stdin` (default: /dev/null), `stdout`, `stderr`,
        `cwd`, `env` and `pass_fds` are as in subprocess.Popen; `priority` and `weight` are for
        the scheduler.

        Raises as `create_process`; TypeError or ValueError for a bad argv; OSError if the program
        cannot be executed; UnknownKindError if the kind `processes` is not installed. Nothing
        is left behind then.
        """

        def create(name: str) -> Process:
            return self.create_process(name, parent, limits=limits)

        return self._spawner.spawn(argv, create, name, limits or self._limits, options)

    def process(self, name: str, parent: int | Process | None = None) -> ProcessScope:
        """A process for the length of a `with` block, in which it is the current process."""
        return ProcessScope(self, name, parent)

    def get(self, pid: int) -> Process:
        """Return a process, also one that ended lately. Raises ProcessNotFoundError."""
        process = self._processes.get(Pid(pid))
        if process is not None:
            return process
        with self._lock:
            return self._get(pid)

    def list_processes(self) -> list[ProcessInfo]:
        """All that have not terminated yet, oldest first."""
        with self._lock:
            return [process.info() for process in self._processes.values()]

    @property
    def totals(self) -> CleanupStats:
        """The sum of all accounts so far."""
        return self._history.totals

    def wait(self, pid: int, timeout: float | None = None) -> CleanupResult:
        """Wait until a process has terminated, whoever ends it; return the account.

        Raises TimeoutError after `timeout` seconds, ProcessNotFoundError, and
        TerminationDeadlockError if it is this very thread that is to end it.
        """
        process = self.get(pid)
        check_not_terminating_here(process, self._ender_loops)
        return process._result.result(timeout)

    async def wait_async(self, pid: int) -> CleanupResult:
        """As `wait`, without blocking the event loop; `asyncio.timeout` bounds it."""
        return await asyncio.shield(asyncio.wrap_future(self.get(pid)._result.future))

    # -- termination ---------------------------------------------------------

    def terminate_process(self, pid: int, grace: float | None = None) -> CleanupResult:
        """End a process and those it owns; return its account, the same to every caller.

        `grace` in seconds, instead of the manager's. Raises ProcessNotFoundError for an unknown
        pid, ValueError for a bad grace. A KeyboardInterrupt or SystemExit ends the grace, and is
        raised when all is settled.
        """
        return self.terminate(self.get(pid), grace)

    async def terminate_process_async(self, pid: int, grace: float | None = None) -> CleanupResult:
        """As `terminate_process`, without blocking the event loop; so for a cancellation."""
        return await self.terminate_async(self.get(pid), grace)

    def terminate(
        self, process: Process, grace: float | None = None, *, with_leaks: bool = False
    ) -> CleanupResult:
        """As `terminate_process`; with `with_leaks`, what it still owns is listed as leaked."""
        grace = self._grace if grace is None else checked_seconds("grace", grace)
        if not self._end([process], grace, process if with_leaks else None):
            check_not_terminating_here(process, self._ender_loops)
        return process._result.result()

    async def terminate_async(
        self, process: Process, grace: float | None = None, *, with_leaks: bool = False
    ) -> CleanupResult:
        """As `terminate`, without blocking the event loop."""
        grace = self._grace if grace is None else checked_seconds("grace", grace)
        loop = asyncio.get_running_loop()
        ending: list[Process] = []
        awaited = self._begin([process], loop, ending)
        if ending:
            leaker = process if with_leaks else None
            with terminating_here(ending):
                if (in_use := self._conclude_if_empty(ending, awaited)) is not NO_KINDS:
                    steps = self._steps(ending, awaited, grace, leaker, loop, in_use)
                    _raise_interrupt(await run_async(steps))
            return process._result.result()
        return await asyncio.shield(asyncio.wrap_future(process._result.future))

    def close(self) -> None:
        """Terminate all, newest first, and create no more. Idempotent."""
        interrupt: BaseException | None = None
        try:
            try:
                self._end(self._close_door(), self._grace, waits_for_others=True)
            except (KeyboardInterrupt, SystemExit) as error:
                interrupt = error
            self._history.retry(self._still_owning(), self._deadline)
            self._spawner.close()
        finally:
            self._admission.disclaim(self)
        if interrupt is not None:
            raise interrupt

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        ending: list[Process] = []
        awaited = self._begin(self._close_door(), loop, ending)
        try:
            with terminating_here(ending):
                ended = await run_async(self._steps(ending, awaited, self._grace, None, loop))
            await self._history.retry_async(self._still_owning(), self._deadline)
            self._spawner.close()
        finally:
            self._admission.disclaim(self)
        _raise_interrupt(ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def forget_parent(self) -> None:
        """Have no processes, in a forked child: the parent's are the parent's to end."""
        for process in self._processes.values():
            process._state = ProcessState.TERMINATED
            process._result = PendingResult()
            process._result.resolve(CleanupResult(pid=process.pid))
        self._lock = threading.RLock()
        self._processes = {}
        self._history.forget_parent()
        self._ender_loops = {}

    # -- inside --------------------------------------------------------------

    def _get(self, pid: int) -> Process:
        process = self._processes.get(Pid(pid)) or self._history.get(Pid(pid))
        if process is None:
            raise ProcessNotFoundError(pid)
        return process

    def _still_owning(self) -> list[int]:
        """The dead that own something still: it was busy."""
        return sorted(pid for pid in self._registry.owners() if pid > self._after)

    def _close_door(self) -> list[Process]:
        """Create no more from here on; return those that nobody owns, newest first."""
        with self._lock:
            self._is_closed = True
            return [p for p in self._processes.values() if p.parent is None][::-1]

    def _end(
        self,
        roots: Sequence[Process],
        grace: float,
        leaker: Process | None = None,
        *,
        waits_for_others: bool = False,
    ) -> bool:
        """End processes on this thread; False if all of them are, or are being, ended already.

        A KeyboardInterrupt or SystemExit is raised when all is settled.
        """
        ending: list[Process] = []
        try:
            awaited = self._begin(roots, None, ending)
            if ending or waits_for_others:
                with terminating_here(ending):
                    if (in_use := self._conclude_if_empty(ending, awaited)) is not NO_KINDS:
                        steps = self._steps(ending, awaited, grace, leaker, in_use=in_use)
                        _raise_interrupt(run(steps))
        except (KeyboardInterrupt, SystemExit):
            # If it fell between two steps, those that were left out are taken now.
            left = [process for process in ending if process._result.outcome is None]
            with self._lock:
                self._mark(left, None)
            run(self._steps(left, [], 0, None))
            raise
        return bool(ending)

    def _begin(
        self,
        roots: Sequence[Process],
        loop: asyncio.AbstractEventLoop | None,
        ending: list[Process],
    ) -> list[Process]:
        """Take the processes and all they own from RUNNING to TERMINATING, atomically.

        Those are put into `ending`, in order; returns those that somebody else is ending.
        """
        with self._lock:
            running, awaited = in_order(roots)
            # First: nothing has changed up to here, and from here on it is known what is to end.
            ending += running
            self._mark(ending, loop)
        return awaited

    def _mark(self, ending: list[Process], loop: asyncio.AbstractEventLoop | None) -> None:
        for process in ending:
            process._state = ProcessState.TERMINATING
            self._admission.revoke(process.pid)
            self._ender_loops[process.pid] = loop

    def _conclude_if_empty(self, ending: list[Process], awaited: object) -> KindsInUse | None:
        """Settle a process that ends alone, and owns nothing; tell who holds something of it.

        None if it does not end alone, NO_KINDS if it is settled.
        """
        if len(ending) != 1 or awaited:
            return None
        process = ending[0]
        in_use = self._registry.kinds_in_use(process.pid)
        if in_use is NO_KINDS:
            self._conclude(process, nothing_of(process.pid))
        return in_use

    def _steps(
        self,
        ending: list[Process],
        awaited: list[Process],
        grace: float,
        leaker: Process | None,
        loop: asyncio.AbstractEventLoop | None = None,
        in_use: KindsInUse | None = None,
    ) -> Generator[Wait, None, BaseException | None]:
        """Settle `ending` in this order, with one grace for all; return an interrupt, if any.

        `holders`: those of the only one, if they are known.
        """
        terminations = [
            Termination(process.pid, self._registry, self._deadline, process is leaker, in_use)
            for process in ending
        ]
        return terminate_in_order(
            list(zip(ending, terminations, strict=True)),
            lambda: terminations_elsewhere(awaited, self._ender_loops, loop),
            self._conclude,
            grace,
            float("inf") if self._deadline is None else self._deadline,
        )

    def _conclude(self, process: Process, outcome: CleanupResult | BaseException) -> None:
        """Take a process from TERMINATING to TERMINATED, and hand its account out."""
        pid = process.pid
        result = outcome if isinstance(outcome, CleanupResult) else None
        with self._lock:
            process._state = ProcessState.TERMINATED
            process._children.clear()
            if process.parent is not None:
                process.parent._children.pop(pid, None)
            self._processes.pop(pid, None)
            self._ender_loops.pop(pid, None)
            self._history.keep(process, result)
        if result is not None and (result.errors or result.leaks):
            self._history.log_failures(process, result)
        process._result.resolve(outcome)

    def _withdraw(self, process: Process) -> None:
        """Take back a process whose OS process could not be started."""
        try:
            self.terminate(process, 0)
        finally:
            self._history.forget(process)


def _raise_interrupt(ended: RunResult[BaseException | None]) -> None:
    interrupt = ended.interrupt or ended.value
    if interrupt is not None:
        raise interrupt
