"""The process manager: issues pids, knows the tree, has it terminated, adds accounts up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, Unpack, final

from probate.errors import ProcessNotFoundError, ProcessTerminatedError
from probate.models import ProcessState
from probate.orchestrator import registry_of
from probate.process.builder import ProcessManagerBuilder
from probate.process.current import ProcessScope
from probate.process.errors import ManagerClosedError
from probate.process.hostexit import open_managers
from probate.process.hostsignals import HostSignals
from probate.process.lease import Lease
from probate.process.order import check_not_terminating_here
from probate.process.process import Pid, Process
from probate.process.spawning import Spawner, SpawnOptions
from probate.process.terminator import Terminator
from probate.system.arguments import checked_pid
from probate.system.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probate.models import CleanupResult, CleanupStats, ProcessInfo, ResourceLimits
    from probate.orchestrator import ResourceOrchestrator
    from probate.process.argv import Argument
    from probate.process.builder import ManagerOptions
    from probate.settlement.account import HostAccount


@final
class ProcessManager:
    """Creates processes, which own resources, and terminates them. Made by its `builder()`.

    A context manager, sync and async: leaving it terminates all. One that nobody has closed is
    closed at the interpreter's exit, with a ResourceWarning; until then it lives on as long as any
    process of it runs, even if it is dropped. Thread-safe. In a forked child it has no
    processes. What is neither an int nor a `Process` is a TypeError wherever a pid is
    taken.
    """

    def __init__(self, orchestrator: ResourceOrchestrator, options: ManagerOptions) -> None:
        self.orchestrator = orchestrator
        self._registry = registry_of(orchestrator)
        self._admission = self._registry.admission
        self._deadline = options.deadline
        self._limits = options.limits
        terminator = Terminator(self._registry, options.grace, options.deadline)
        self._terminate, self._terminate_async = terminator.terminate, terminator.terminate_async
        self._terminator = terminator
        self._lock, self._processes = terminator.lock, terminator.processes
        self._history = terminator.history
        self._is_closed = False
        orchestrator.check_pending()
        if options.limits is not None:
            self._registry.check_limits(options.limits)
        # Whatever is owned by plain keys so far must not fall to a process of ours.
        self._after = max(self._registry.owners(), default=0)
        self._signals = HostSignals(self, options.signals)
        self._spawner = Spawner(self, self._withdraw, options.scheduling, options.has_status)
        self._admission.claim(self, after=self._after, record_sites=options.record_sites)
        self._journal_path = options.journal.path if options.journal is not None else None
        if options.journal is not None:
            self._admission.journal = options.journal.open(self._running)
        self._spawner.open()
        forget_in_forked_child(self)
        open_managers.add(self)
        self._signals.install()
        self._lease = None if options.lease is None else Lease(self, options.lease)
        if self._lease is not None:
            self._lease.begin()

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
        key: str | None = None,
        limits: ResourceLimits | None = None,
    ) -> Process:
        """Create a process, owned by process `parent` if given; it ends with its parent.

        `key` is what it is known by outside this host, for `by_key`; it is noted in the journal at
        once, so that it is known of a dead host that it had this process, and what became of that.
        `limits` are this process's own, instead of the manager's.

        Raises ProcessNotFoundError or ProcessTerminatedError for the parent, TypeError for a name
        or key that is no string and for what are no limits, ValueError for the key of a process
        that has not terminated yet, UnknownKindError for limits of a kind that there is not,
        JournalNotArmedError for a key that cannot be noted, and ManagerClosedError if the manager
        is closed.
        """
        if not isinstance(name, str):
            raise TypeError(f"a process's name must be a string, got {name!r}")
        if not isinstance(key, str | None):
            raise TypeError(f"a process's key must be a string, got {key!r}")
        if limits is not None:
            self._registry.check_limits(limits)
        with self._lock:
            if self._is_closed:
                raise ManagerClosedError("it creates no more processes")
            owner = None if parent is None else self.get(parent)
            if owner is not None and owner.state is not ProcessState.RUNNING:
                raise ProcessTerminatedError(owner.pid)
            if key is not None and (other := self.by_key(key)) is not None:
                raise ValueError(f"key {key!r} is that of {other!r}")
            pid = Pid(self._admission.issue(limits or self._limits))
            process = Process(self, pid, name, owner, key)
            self._processes[pid] = process
            open_managers.hold(process)
            if owner is not None:
                owner._children[pid] = process
            if key is not None:
                self._note_key(process, key)
        return process

    def spawn(
        self,
        argv: Sequence[Argument],
        name: str | None = None,
        parent: int | Process | None = None,
        *,
        key: str | None = None,
        limits: ResourceLimits | None = None,
        **options: Unpack[SpawnOptions],
    ) -> Process:
        """Start an OS process, in a session of its own, and create a process that owns it.

        When the OS process exits, the process and all that descends from it are terminated,
        without anybody calling. `name` is the program's by default, `parent` the current process.
        `stdin` (default: /dev/null) and the others are as in subprocess.Popen; with `stop="tree"`
        all are asked to stop at once; `priority` and `weight` are for the scheduler. With
        `observe=True` what it makes by name is noticed as it is made, given back when it has ended
        as `probate run` does, and told of in the notes of the account.

        Raises as `create_process`, ManagerClosedError also if the manager is closed meanwhile;
        TypeError or ValueError for a bad argv; OSError if the program cannot be executed;
        UnknownKindError if the kind `processes` is not installed; ObservationUnavailableError if
        nobody may look on. Nothing is left behind then.
        """
        with self._admission.under_way():
            try:
                return self._spawner.spawn(argv, name, parent, key, limits or self._limits, options)
            except ProcessTerminatedError:
                if self._is_closed:
                    raise ManagerClosedError("it spawns no more processes") from None
                raise

    def process(
        self,
        name: str,
        parent: int | Process | None = None,
        *,
        key: str | None = None,
        limits: ResourceLimits | None = None,
    ) -> ProcessScope:
        """Create a process for the length of a `with` block, in which it is the current one.

        Entering the block raises as `create_process`.
        """
        return ProcessScope(self, name, parent, limits, key)

    def get(self, pid: int | Process) -> Process:
        """Find a process, also one that terminated lately. Raises ProcessNotFoundError.

        A process of this manager may stand for its pid, and is found however long ago it ended.
        """
        if isinstance(pid, Process):
            if pid._manager is self:
                return pid
            raise ProcessNotFoundError(pid.pid)
        if type(pid) is not int:
            pid = checked_pid(pid)
        process = self._processes.get(pid) or self._history.get(pid)
        if process is None:
            raise ProcessNotFoundError(pid)
        return process

    def by_key(self, key: str) -> Process | None:
        """Find the process with this key that has not terminated yet; None if there is none."""
        return self._terminator.by_key.get(key)

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
        try:
            return process._result.result(timeout)
        except TimeoutError as error:
            if error.args:
                raise
            raise TimeoutError(f"{process!r} has not ended in {timeout} seconds") from None

    async def wait_async(self, pid: int | Process) -> CleanupResult:
        """Wait as `wait` does, without blocking the event loop; `asyncio.timeout` bounds it.

        Raises TerminationDeadlockError in what is called as it is terminated.
        """
        process = self.get(pid)
        check_not_terminating_here(process, blocks=False)
        return await process._result.result_async()

    # -- after a death -------------------------------------------------------

    def accounts(self) -> list[HostAccount]:
        """Return what was settled of hosts of this user that have died, and nobody has read yet.

        Each account is handed out once, here or by `probate sweep`, which settles what is still
        left. They are those in the folder of this manager's journal, or in the default places.
        """
        from probate.settlement import read_accounts

        return read_accounts(self._journal_path)

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

    def renew(self) -> None:
        """Let the lease last for all of its seconds again, from now on.

        Raises LeaseExpiredError if it was not renewed in time, ManagerClosedError if the manager is
        closed, and RuntimeError without a lease.
        """
        if self._lease is None:
            raise RuntimeError("this manager has no lease: build it with_lease(seconds)")
        self._lease.renew()

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
            if self._signals.close():
                open_managers.discard(self)

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
            if await self._signals.aclose():
                open_managers.discard(self)

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
        self._terminator.forget_parent()
        self._lock = self._terminator.lock

    def end_grace(self) -> None:
        """End the grace of all that is being terminated, and give none any more.

        For a host in a hurry. It may be called from any thread.
        """
        self._terminator.grace.end()

    def has_calls(self) -> bool:
        """Tell whether any thread is about to acquire or to release something, on its own.

        What it has in hand is nobody's at that moment. For a host that is about to end.
        """
        return self._admission.has_calls()

    def count_held(self) -> dict[str, int]:
        """Count what its processes own, by kind, in cleanup order."""
        return self._registry.count_owned(above=self._after)

    # -- inside --------------------------------------------------------------

    def _refuse_new(self) -> list[Process]:
        """Create no more from here on; return those that nobody owns, newest first."""
        with self._lock:
            self._is_closed = True
            if self._lease is not None:
                self._lease.end()
            return [p for p in self._processes.values() if p.parent is None][::-1]

    def _add(self, result: CleanupResult) -> None:
        with self._lock:
            self._history.add(result.stats)

    def _running(self, pid: int) -> Process | None:
        return self._processes.get(pid)

    def _note_key(self, process: Process, key: str) -> None:
        self._terminator.by_key[key] = process
        try:
            if (journal := self._admission.journal) is not None:
                journal.note(process.pid)
        except BaseException:
            self._withdraw(process)
            raise

    def _withdraw(self, process: Process) -> None:
        """Take back a process whose OS process could not be started."""
        try:
            self.terminate_process(process, 0)
        finally:
            with self._lock:
                self._history.forget(process)
