"""The process manager: issues pids, knows the tree, terminates each process once, adds up."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Self, Unpack, final

from probate.errors import ProcessNotFoundError, ProcessTerminatedError
from probate.models import CleanupResult, ProcessState, nothing_of
from probate.orchestrator import checked_seconds, registry_of
from probate.plugins.registry import NO_KINDS
from probate.process.builder import ProcessManagerBuilder
from probate.process.current import ProcessScope
from probate.process.history import TerminationHistory, log_failures
from probate.process.order import (
    check_not_terminating_here,
    mark_terminating,
    terminate_in_order,
    terminating_here,
    termination_order,
    terminations_elsewhere,
)
from probate.process.pending import PendingResult, Run
from probate.process.process import Pid, Process
from probate.process.spawning import Spawner, SpawnOptions
from probate.system.forking import forget_in_forked_child
from probate.system.interrupts import Elsewhere
from probate.termination.steps import Termination
from probate.termination.waiting import Wait, run, run_async, run_elsewhere

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from probate.models import CleanupStats, ProcessInfo, ResourceLimits
    from probate.orchestrator import ResourceOrchestrator
    from probate.plugins.registry import KindsInUse
    from probate.process.argv import Argument
    from probate.process.builder import ManagerOptions


@final
class ProcessManager:
    """Creates processes, which own resources, and terminates them. Made by its `builder()`.

    A context manager, sync and async: leaving it terminates all. Thread-safe. In a forked child
    it has no processes.
    """

    def __init__(self, orchestrator: ResourceOrchestrator, options: ManagerOptions) -> None:
        self.orchestrator = orchestrator
        self._registry = registry_of(orchestrator)
        self._admission = self._registry.admission
        self._grace = options.grace
        self._deadline = options.deadline
        self._limits = options.limits
        self._lock = threading.RLock()
        self._processes: dict[int, Process] = {}
        self._history = TerminationHistory()
        self._is_closed = False
        orchestrator.check_pending()
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
            owner = None if parent is None else self.get(parent)
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
        """Start an OS process, in a session of its own, and create a process that owns it.

        When the OS process exits, the process and all that descends from it are terminated,
        without anybody calling. `name` is the program's by default. `stdin` (default: /dev/null),
        `stdout`, `stderr`, `cwd`, `env` and `pass_fds` are as in subprocess.Popen; `priority` and
        `weight` are for the scheduler.

        Raises as `create_process`; TypeError or ValueError for a bad argv; OSError if the program
        cannot be executed; UnknownKindError if the kind `processes` is not installed. Nothing
        is left behind then.
        """
        return self._spawner.spawn(argv, name, parent, limits or self._limits, options)

    def process(self, name: str, parent: int | Process | None = None) -> ProcessScope:
        """Create a process for the length of a `with` block, in which it is the current one."""
        return ProcessScope(self, name, parent)

    def get(self, pid: int | Process) -> Process:
        """Find a process, also one that terminated lately. Raises ProcessNotFoundError.

        A process of this manager may stand for its pid, and is found however long ago it ended.
        """
        if isinstance(pid, Process):
            if pid._manager is self:
                return pid
            raise ProcessNotFoundError(pid.pid)
        process = self._processes.get(pid) or self._history.get(pid)
        if process is None:
            raise ProcessNotFoundError(pid)
        return process

    def list_processes(self) -> list[ProcessInfo]:
        """List the processes that have not terminated yet, oldest first."""
        with self._lock:
            return [process.info() for process in self._processes.values()]

    @property
    def totals(self) -> CleanupStats:
        """Return the sum of all accounts so far."""
        with self._lock:
            return self._history.totals()

    def wait(self, pid: int | Process, timeout: float | None = None) -> CleanupResult:
        """Wait until a process has terminated, whoever terminates it; return the account.

        Raises TimeoutError after `timeout` seconds, ProcessNotFoundError, and
        TerminationDeadlockError if it is this very thread that is to terminate it.
        """
        process = self.get(pid)
        check_not_terminating_here(process)
        return process._result.result(timeout)

    async def wait_async(self, pid: int | Process) -> CleanupResult:
        """Wait as `wait` does, without blocking the event loop; `asyncio.timeout` bounds it."""
        return await self.get(pid)._result.result_async()

    # -- termination ---------------------------------------------------------

    def terminate_process(
        self, pid: int | Process, grace: float | None = None, *, with_leaks: bool = False
    ) -> CleanupResult:
        """Terminate a process and those it owns; return its account, the same to every caller.

        `grace` in seconds, instead of the manager's. With `with_leaks`, what it still owns is
        listed in the account as leaked. Raises ProcessNotFoundError, and ValueError for a bad
        grace. Whatever falls in from outside - Ctrl-C, an exception that a signal handler raises -
        ends the grace, and is raised when everything is released.
        """
        process = self.get(pid)
        self._terminate([process], grace, process if with_leaks else None)
        return self.wait(process)

    async def terminate_process_async(
        self, pid: int | Process, grace: float | None = None, *, with_leaks: bool = False
    ) -> CleanupResult:
        """Terminate as `terminate_process` does, without blocking the event loop.

        A cancellation, too, ends the grace, and is raised when everything is released.
        """
        process = self.get(pid)
        await self._terminate_async([process], grace, process if with_leaks else None)
        return await self.wait_async(process)

    def close(self) -> None:
        """Terminate all processes, newest first, and create no more. Idempotent."""
        try:
            try:
                self._terminate(self._refuse_new(), waits_for_others=True)
            finally:
                cleanup = self.orchestrator.cleanup_process
                for pid in self._registry.owners(above=self._after):
                    self._add(cleanup(pid, grace=0, deadline=self._deadline))
                self._spawner.close()
        finally:
            self._admission.disclaim(self)

    async def aclose(self) -> None:
        """Close as `close` does, without blocking the event loop."""
        try:
            try:
                await self._terminate_async(self._refuse_new(), waits_for_others=True)
            finally:
                cleanup = self.orchestrator.cleanup_process_async
                for pid in self._registry.owners(above=self._after):
                    self._add(await cleanup(pid, grace=0, deadline=self._deadline))
                self._spawner.close()
        finally:
            self._admission.disclaim(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def forget_parent(self) -> None:
        """Have no processes, in a forked child: those of the parent are the parent's."""
        for process in self._processes.values():
            process._state = ProcessState.TERMINATED
            process._result = PendingResult()
            process._result.resolve(nothing_of(process.pid))
        self._lock = threading.RLock()
        self._processes = {}
        self._history = TerminationHistory()

    # -- inside --------------------------------------------------------------

    def _refuse_new(self) -> list[Process]:
        """Create no more from here on; return those that nobody owns, newest first."""
        with self._lock:
            self._is_closed = True
            return [p for p in self._processes.values() if p.parent is None][::-1]

    def _terminate(
        self,
        roots: Sequence[Process],
        grace: float | None = None,
        leaker: Process | None = None,
        *,
        waits_for_others: bool = False,
    ) -> None:
        """Terminate processes on this thread, as far as nobody else does."""
        grace = self._grace if grace is None else checked_seconds("grace", grace)
        ending: list[Process] = []
        current = Run()
        try:
            awaited = self._begin(roots, None, ending, current)
            if ending or waits_for_others:
                with terminating_here(ending):
                    if (steps := self._steps(ending, awaited, grace, leaker)) is not None:
                        (ended := run(steps)).unwrap(ended.value)
        except BaseException:
            # Before any call: should another exception fall in here, the next to ask takes over.
            current.is_lost = True
            Elsewhere(partial(self._complete, ending, current)).result()
            raise

    async def _terminate_async(
        self,
        roots: Sequence[Process],
        grace: float | None = None,
        leaker: Process | None = None,
        *,
        waits_for_others: bool = False,
    ) -> None:
        """Terminate processes on this event loop, as far as nobody else does."""
        grace = self._grace if grace is None else checked_seconds("grace", grace)
        loop = asyncio.get_running_loop()
        ending: list[Process] = []
        current = Run()
        try:
            awaited = self._begin(roots, loop, ending, current)
            if ending or waits_for_others:
                with terminating_here(ending):
                    if (steps := self._steps(ending, awaited, grace, leaker, loop)) is not None:
                        (ended := await run_async(steps)).unwrap(ended.value)
        except BaseException:
            current.is_lost = True
            await run_elsewhere(partial(self._complete, ending, current))
            raise

    def _complete(self, ending: Sequence[Process], lost: Run) -> None:
        """Terminate those that an exception from outside has left TERMINATING."""
        with self._lock:
            left = [process for process in ending if process._result.run in (lost, None)]
            left = [process for process in left if process._result.outcome is None]
            mark_terminating(left, Run(), None, self._admission)
        try:
            with terminating_here(left):
                if (steps := self._steps(left, [], 0)) is not None:
                    run(steps)
        except BaseException as error:
            # One of our own. Whoever waits is told, rather than waiting for ever.
            for process in left:
                if process._result.outcome is None:
                    self._conclude(process, error)

    def _begin(
        self,
        roots: Sequence[Process],
        loop: asyncio.AbstractEventLoop | None,
        ending: list[Process],
        current: Run,
    ) -> list[Process]:
        """Take the processes and all they own to TERMINATING, and into `ending`, atomically.

        Returns those that somebody else terminates.
        """
        with self._lock:
            running, awaited = termination_order(roots)
            # First: nothing has changed yet, and from here on it is known what is to end.
            ending += running
            mark_terminating(running, current, loop, self._admission)
        return awaited

    def _steps(
        self,
        ending: list[Process],
        awaited: list[Process],
        grace: float,
        leaker: Process | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Generator[Wait, None, BaseException | None] | None:
        """Return the steps that terminate `ending`; they return an interrupt, if any.

        None if there is one process only, which owned nothing and is concluded already.
        """
        in_use: KindsInUse | None = None
        if len(ending) == 1 and not awaited:
            in_use = self._registry.kinds_in_use(ending[0].pid)
            if in_use is NO_KINDS:
                self._conclude(ending[0], nothing_of(ending[0].pid))
                return None
        pairs = [(each, self._termination_of(each, each is leaker, in_use)) for each in ending]
        others = partial(terminations_elsewhere, awaited, loop)
        deadline = float("inf") if self._deadline is None else self._deadline
        return terminate_in_order(pairs, others, self._conclude, grace, deadline)

    def _termination_of(
        self, process: Process, with_leaks: bool, in_use: KindsInUse | None
    ) -> Termination:
        """Return the one termination of a process, which keeps its account if taken up anew."""
        result = process._result
        if result.termination is None:
            result.termination = Termination(
                process.pid, self._registry, self._deadline, with_leaks, in_use
            )
        return result.termination

    def _conclude(self, process: Process, outcome: CleanupResult | BaseException) -> None:
        """Take a process from TERMINATING to TERMINATED, and hand its account out."""
        pid = process.pid
        result = outcome if isinstance(outcome, CleanupResult) else None
        with self._lock:
            process._state = ProcessState.TERMINATED
            process._children.clear()
            if process.parent is not None:
                process.parent._children.pop(pid, None)
            # In this order, so that `get`, without the lock, finds it in one of the two.
            self._history.keep(process)
            self._processes.pop(pid, None)
            if result is not None:
                self._history.add(result.stats)
        if result is not None and (result.errors or result.leaks):
            log_failures(process, result)
        process._result.resolve(outcome)

    def _add(self, result: CleanupResult) -> None:
        with self._lock:
            self._history.add(result.stats)

    def _withdraw(self, process: Process) -> None:
        """Take back a process whose OS process could not be started."""
        try:
            self.terminate_process(process, 0)
        finally:
            with self._lock:
                self._history.forget(process)
