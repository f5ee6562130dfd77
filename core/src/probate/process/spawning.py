"""OS processes behind processes: spawned by the kind `processes`, settled when they die."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict, final

from probate.models import ProcessState
from probate.process.argv import checked_argv
from probate.process.reporting import report
from probate.process.status import StatusSocket
from probate.process.terminationthread import TerminationThread
from probate.system.deathwatch import death_watch

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

    from probate.models import ResourceLimits
    from probate.process.argv import Argument
    from probate.process.child import OsChild
    from probate.process.process import Ender, Process
    from probate.process.scheduling import Scheduling, SchedulingPolicy

#: The kind that owns OS processes, and the one that shares out their time.
PROCESSES: Final = "processes"
SCHEDULER: Final = "scheduler"


class StdioOptions(TypedDict, total=False):
    """What a spawned OS process starts with, each as in subprocess.Popen."""

    stdin: int | IO[Any] | None
    stdout: int | IO[Any] | None
    stderr: int | IO[Any] | None
    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str] | None
    pass_fds: Sequence[int]


class SpawnOptions(StdioOptions, total=False):
    """What `ProcessManager.spawn` takes besides."""

    priority: int
    weight: int


class _Spawns(Protocol):
    """The manager of kind `processes`, as far as it is needed here."""

    def spawn(
        self, pid: int, argv: Sequence[Argument], *, limits: ResourceLimits | None, **options: Any
    ) -> OsChild:
        """Start an OS process that `pid` owns."""


class _Schedules(Protocol):
    """The manager of kind `scheduler`, as far as it is needed here."""

    def configure(self, policy: SchedulingPolicy, quantum: float) -> None:
        """Share out processor time by this policy, in slices of `quantum` seconds."""

    def add(self, pid: int, os_pid: int, *, priority: int = 0, weight: int = 1) -> object:
        """Put an OS process on the run queue, for `pid`."""

    def join_if_idle(self) -> object:
        """Wait until its thread is gone, if nothing is on the queue."""


@final
class Spawner:
    """Spawns for one manager, and has it settle what dies by itself."""

    def __init__(
        self,
        manager: Ender,
        withdraw: Callable[[Process], None],
        scheduling: Scheduling | None,
        has_status: bool,
    ) -> None:
        self._manager = manager
        self._withdraw = withdraw
        self._schedules: _Schedules | None = None
        self._termination_thread = TerminationThread()
        self._status = StatusSocket(lambda: report(manager.orchestrator, manager.list_processes()))
        self._has_status = has_status
        if scheduling is not None:
            self._schedules = manager.orchestrator[SCHEDULER].manager
            self._schedules.configure(*scheduling)

    def open(self) -> None:
        """Be ready: nothing that could fail comes after this."""
        if self._has_status:
            self._status.open()

    def spawn(
        self,
        argv: Sequence[Argument],
        create: Callable[[str], Process],
        name: str | None,
        limits: ResourceLimits | None,
        options: SpawnOptions,
    ) -> Process:
        """Create a process, and an OS process behind it, or nothing at all."""
        checked = checked_argv(argv)
        spawns: _Spawns = self._manager.orchestrator[PROCESSES].manager
        scheduled = {key: options.pop(key) for key in ("priority", "weight") if key in options}
        if scheduled and self._schedules is None:
            raise ValueError(
                f"{' and '.join(scheduled)} mean nothing without a scheduler: build the manager "
                "with_scheduler(...)"
            )
        process = create(os.path.basename(os.fsdecode(checked[0])) if name is None else name)  # noqa: PTH119  a program need not be a path
        try:
            child = spawns.spawn(process.pid, checked, limits=limits, **options)
            process.set_child(child)
            if self._schedules is not None:
                self._schedules.add(process.pid, child.os_pid, **scheduled)
        except BaseException:
            self._withdraw(process)
            raise
        self._status.open()
        self._termination_thread.keep_ready()
        process.on_terminated(self._let_go)
        child.exited.add_done_callback(partial(self._died, process))
        return process

    def close(self) -> None:
        """Wait until what died by itself is settled, and the threads for it are gone."""
        self._termination_thread.join()
        if self._has_status:
            self._has_status = False
            self._status.close()
        if self._schedules is not None:
            self._schedules.join_if_idle()
        death_watch.join_if_idle()

    def _let_go(self) -> None:
        self._status.close()
        self._termination_thread.let_go()

    def _died(self, process: Process, exited: concurrent.futures.Future[int | None]) -> None:
        if process.state is ProcessState.RUNNING:
            terminate = partial(
                self._manager.terminate_async, process, with_leaks=exited.result() == 0
            )
            self._termination_thread.run(terminate)
