"""OS processes behind processes: spawned by the kind `processes`, terminated when they exit."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypedDict, final

from probate.models import ProcessState
from probate.process.argv import checked_argv
from probate.process.current import current_or_none
from probate.process.status import StatusSocket, report
from probate.process.terminationthread import TerminationThread
from probate.system.deathwatch import death_watch

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import IO

    from probate.models import ResourceLimits
    from probate.process.argv import Argument
    from probate.process.process import Manager, OsChild, Process
    from probate.process.scheduling import Scheduling, SchedulingPolicy

#: The kind that owns OS processes, and the one that shares out their time.
PROCESSES: Final = "processes"
SCHEDULER: Final = "scheduler"


class PopenOptions(TypedDict, total=False):
    """Says how a spawned OS process is started, each as in subprocess.Popen, by those seldom used.

    What is not among them is refused when it is given, with the reason.
    """

    executable: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None
    bufsize: int
    text: bool | None
    universal_newlines: bool | None
    encoding: str | None
    errors: str | None
    user: str | int | None
    group: str | int | None
    extra_groups: Iterable[str | int] | None
    umask: int
    close_fds: bool
    restore_signals: bool
    pipesize: int


class SpawnOptions(PopenOptions, total=False):
    """Says what a spawned OS process starts with, each as in subprocess.Popen.

    `stop` is who is asked to stop first; `observe` whether what it makes by name is given back,
    too; `priority` and `weight` are for the scheduler.
    """

    stdin: int | IO[Any] | None
    stdout: int | IO[Any] | None
    stderr: int | IO[Any] | None
    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str] | None
    pass_fds: Sequence[int]
    stop: Literal["leader", "tree"]
    observe: bool
    priority: int
    weight: int


class _Schedules(Protocol):
    """Schedules OS processes: what is needed here of the manager of kind `scheduler`."""

    def configure(self, policy: SchedulingPolicy, quantum: float) -> None:
        """Share out processor time by this policy, in slices of `quantum` seconds."""

    def add(self, pid: int, os_pid: int, *, priority: int = 0, weight: int = 1) -> object:
        """Put an OS process on the run queue, for `pid`."""

    def join_if_idle(self) -> object:
        """Wait until its thread has ended, if nothing is on the queue."""


class _Starts(Protocol):
    """Starts OS processes: what is needed here of the manager of kind `processes`."""

    @property
    def spawn(self) -> Callable[..., OsChild]:
        """Return what starts one, for a pid."""

    def join_if_idle(self) -> object:
        """Wait until nothing is under way that was begun by a start."""


@final
class Spawner:
    """Spawns for one manager, and has it terminate each process whose OS process has exited."""

    def __init__(
        self,
        manager: Manager,
        withdraw: Callable[[Process], None],
        scheduling: Scheduling | None,
        has_status: bool,
    ) -> None:
        self._manager = manager
        self._withdraw = withdraw
        self._schedules: _Schedules | None = None
        self._starts: _Starts | None = None
        self._termination_thread = TerminationThread()
        self._status = StatusSocket(lambda: report(manager.orchestrator, manager.list_processes()))
        self._has_status = has_status
        if scheduling is not None:
            self._schedules = manager.orchestrator[SCHEDULER].manager
            self._schedules.configure(*scheduling)

    def open(self) -> None:
        """Answer `probate ps`, if that is wanted from the start. Call it once all else is made."""
        if self._has_status:
            self._status.open()

    def spawn(
        self,
        argv: Sequence[Argument],
        name: str | None,
        parent: int | Process | None,
        key: str | None,
        limits: ResourceLimits | None,
        options: SpawnOptions,
    ) -> Process:
        """Create a process, and an OS process behind it, or nothing at all.

        Without a parent it belongs to the process that is current here, if that is this manager's.
        """
        checked = checked_argv(argv)
        starts: _Starts = self._manager.orchestrator[PROCESSES].manager
        self._starts = starts
        scheduled = {key: options.pop(key) for key in ("priority", "weight") if key in options}
        if scheduled and self._schedules is None:
            raise ValueError(
                f"{' and '.join(scheduled)} mean nothing without a scheduler: build the manager "
                "with_scheduler(...)"
            )
        started: dict[str, Any] = {**options}
        if started.pop("observe", False):
            # Late: most hosts have none.
            from probate.run.observing import Observation

            started["observation"] = Observation(checked)
        if name is None:
            name = os.path.basename(os.fsdecode(checked[0]))  # noqa: PTH119  a program need not be a path
        if parent is None and (current := current_or_none()) is not None:
            parent = current if current.is_managed_by(self._manager) else None
        process = self._manager.create_process(name, parent, key=key, limits=limits)
        try:
            child = starts.spawn(process.pid, checked, limits=limits, **started)
            process.set_child(child)
            if self._schedules is not None:
                self._schedules.add(process.pid, child.os_pid, **scheduled)
        except BaseException:
            self._withdraw(process)
            raise
        # First, since a signal handler may fall in that terminates it: whoever is let go of before
        # it was kept is kept no more afterwards.
        process.on_terminated(self._let_go)
        self._status.open()
        self._termination_thread.keep_ready()
        child.exited.add_done_callback(partial(self._terminate, process))
        return process

    def close(self) -> None:
        """Wait until all whose OS process has exited are terminated, and the threads have ended."""
        self._termination_thread.join()
        if self._has_status:
            self._has_status = False
            self._status.close()
        for each in (self._schedules, self._starts):
            if each is not None:
                each.join_if_idle()
        death_watch.join_if_idle()

    def _let_go(self) -> None:
        self._status.close()
        self._termination_thread.let_go()

    def _terminate(self, process: Process, exited: concurrent.futures.Future[int | None]) -> None:
        if process.state is ProcessState.RUNNING:
            terminate = partial(
                self._manager.terminate_process_async, process, with_leaks=exited.result() == 0
            )
            self._termination_thread.run(terminate)
