"""The scheduler: puts OS processes on the run queue, each for one process."""

from __future__ import annotations

import contextlib
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, final

from probate import (
    NotOwnedError,
    OsProcess,
    OwnershipTable,
    ProcessTerminatedError,
    SchedulingPolicy,
    pid_or_current,
    runs_inline,
)
from probate.system import start_time_of
from probate_scheduler import arguments
from probate_scheduler.entry import RunQueueEntry, key_of
from probate_scheduler.runqueue import RunQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from probate import CleanupStats, ResourceId
    from probate_scheduler.figures import EntryStatistics, SchedulerStatistics


@final
class SchedulerManager:
    """Shares processor time out among OS processes, by SIGSTOP and SIGCONT.

    At most `slots` of them run at a time; by default as many as this host has CPUs
    (sched_getaffinity(2)), so that no CPU idles while somebody waits. While no more want to run,
    nobody is stopped.

    Every method but `configure` and `totals` takes the owner's pid first; within
    `with manager.process(...)` it may be left out. Those that take an OS pid besides raise
    NotOwnedError unless this owner has put it on the queue, TypeError or ValueError for bad
    arguments. An OS process that dies leaves the queue by itself.
    """

    def __init__(
        self,
        policy: SchedulingPolicy = SchedulingPolicy.ROUND_ROBIN,
        quantum: float = 0.05,
        *,
        slots: int | None = None,
    ) -> None:
        self._queue = RunQueue(self._died)
        #: Who owns which entries: each of an OS process, which can be on the queue once only.
        self.table: OwnershipTable[RunQueueEntry] = OwnershipTable(
            "scheduler", self._queue.release, identity=attrgetter("key"), alias=_key
        )
        self.configure(policy, quantum, slots=slots)

    def configure(
        self, policy: SchedulingPolicy, quantum: float, *, slots: int | None = None
    ) -> None:
        """Schedule by `policy`, in slices of `quantum` seconds, 0.001 to 1; now and from now on.

        ROUND_ROBIN: each in turn. PRIORITY: the highest, equals in turn; those below starve for
        as long as those above are on the queue. FAIR: by weight, each is charged the wall-clock
        time of its slices, divided by its weight (as the virtual run time of sched-design-CFS,
        kernel doc); who sleeps in a slice has had it all the same. `slots` is how many may run
        at once; None is the number of CPUs.

        Raises TypeError or ValueError.
        """
        checked = arguments.checked_policy(policy), arguments.checked_quantum(quantum)
        self._queue.configure(*checked, arguments.checked_slots(slots))

    # -- on and off the queue --------------------------------------------------

    @pid_or_current
    def add(self, pid: int, os_pid: int, *, priority: int = 0, weight: int = 1) -> ResourceId:
        """Put an OS process on the run queue; with its group, where it leads one.

        A higher `priority` goes first, with PRIORITY; `weight`, 1 to 10000, is its share, with
        FAIR. The first process more than there are slots starts a reaper, which takes as long
        as a Python interpreter takes to start.

        Raises ProcessLookupError if there is no such process, PermissionError if this host may
        not stop it, AlreadyOwnedError if it is on the queue, ReaperUnavailableError,
        PidfdUnavailableError, ProcessTerminatedError, ProcessNotFoundError,
        ResourceLimitExceeded; nothing is on the queue then.
        """
        os_pid = arguments.checked_os_pid(os_pid)
        checked = arguments.checked_priority(priority), arguments.checked_weight(weight)

        def make() -> RunQueueEntry:
            process = OsProcess.open(os_pid)
            try:
                process.send_signal(0)
                entry = RunQueueEntry(process, *checked)
                self._queue.prepare(entry)
            except BaseException:
                process.close()
                raise
            return entry

        entry = self.table.acquire(pid, make)
        try:
            resource_id = self.table.find(pid, entry)
            self._queue.put(entry)
        except NotOwnedError:
            # Cleaned up before it was ever on the queue.
            raise ProcessTerminatedError(pid) from None
        except BaseException:
            self._forget(pid, entry)
            raise
        return resource_id

    @pid_or_current
    def remove(self, pid: int, os_pid: int) -> None:
        """Take an OS process off the queue for good: it runs, niceness and affinity as before.

        For one that has died and thereby left, this does nothing. Raises PermissionError if the
        kernel does not let this host restore the niceness; it is off the queue all the same.
        """
        try:
            self.table.give_back(pid, self.find(pid, os_pid))
        except NotOwnedError as error:
            if error.owner is not None or not _is_gone(os_pid):
                raise
        finally:
            self._queue.join_if_idle()

    #: As in all kinds, what gives back.
    close = remove

    @pid_or_current
    def find(self, pid: int, os_pid: int) -> RunQueueEntry:
        """Return the entry of an OS process, such as to transfer it to another owner."""
        os_pid = arguments.checked_os_pid(os_pid)
        for _, entry in self.table.owned(pid):
            if entry.os_pid == os_pid:
                return entry
        owner = None
        with contextlib.suppress(ProcessLookupError):
            owner = self.table.owner_of(key_of(os_pid, start_time_of(os_pid)))
        raise NotOwnedError("scheduler", pid, f"an entry for OS process {os_pid}", owner)

    # -- one of the queue ------------------------------------------------------

    @pid_or_current
    def pause(self, pid: int, os_pid: int) -> None:
        """Stop an OS process until `resume`. Idempotent.

        Raises ReaperUnavailableError.
        """
        self._queue.pause(self.find(pid, os_pid))

    @pid_or_current
    def resume(self, pid: int, os_pid: int) -> None:
        """Let a paused OS process run again, when its turn comes. Idempotent."""
        self._queue.resume(self.find(pid, os_pid))

    @pid_or_current
    def pause_all(self, pid: int) -> None:
        """Stop all OS processes of this owner until they are resumed. Raises as `pause`."""
        for _, entry in self.table.owned(pid):
            self._queue.pause(entry)

    @pid_or_current
    def resume_all(self, pid: int) -> None:
        """Let all paused OS processes of this owner run again, each when its turn comes."""
        for _, entry in self.table.owned(pid):
            self._queue.resume(entry)

    @pid_or_current
    def set_priority(self, pid: int, os_pid: int, priority: int) -> None:
        """Change the priority that PRIORITY goes by; the highest runs."""
        checked = arguments.checked_priority(priority)
        self._queue.adjust(self.find(pid, os_pid), priority=checked)

    @pid_or_current
    def set_weight(self, pid: int, os_pid: int, weight: int) -> None:
        """Change the weight that FAIR goes by, 1 to 10000."""
        checked = arguments.checked_weight(weight)
        self._queue.adjust(self.find(pid, os_pid), weight=checked)

    @pid_or_current
    def set_nice(self, pid: int, os_pid: int, nice: int) -> None:
        """Set the niceness of all threads of an OS process, -20 to 19 (setpriority(2)).

        When it leaves the queue, what was before is put back where it still is as set here.
        Without CAP_SYS_NICE or RLIMIT_NICE a niceness can be raised only, and not be put back; the
        account then says so. Raises PermissionError, ProcessLookupError.
        """
        checked = arguments.checked_nice(nice)
        entry = self.find(pid, os_pid)
        self._tune(pid, entry, partial(entry.niceness.apply, checked))

    @pid_or_current
    def set_affinity(self, pid: int, os_pid: int, cpus: Iterable[int]) -> None:
        """Have all threads of an OS process run on these CPUs only (sched_setaffinity(2)).

        When it leaves the queue, what was before is put back where it still is as set here.
        Raises ValueError if it may run on none of them, PermissionError, ProcessLookupError.
        """
        checked = arguments.checked_cpus(cpus)
        entry = self.find(pid, os_pid)
        try:
            self._tune(pid, entry, partial(entry.affinity.apply, checked))
        except (PermissionError, ProcessLookupError):
            raise
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"OS process {os_pid} can run on none of the CPUs {sorted(checked)}"
            ) from error

    # -- statistics ------------------------------------------------------------

    @pid_or_current
    def statistics(self, pid: int) -> tuple[EntryStatistics, ...]:
        """Return the figures of this owner's entries, oldest first."""
        owned = self.table.owned(pid)[::-1]
        return tuple(self._queue.statistics(entry) for _, entry in owned)

    @property
    def totals(self) -> SchedulerStatistics:
        """Return the figures of the whole queue, of all owners and of those that have left it."""
        return self._queue.totals()

    def join_if_idle(self) -> None:
        """Wait until the queue's thread and its reaper are gone, if nothing is queued.

        They end by themselves. `remove` and a cleanup wait; this is for when the last OS
        process has died.
        """
        self._queue.join_if_idle()

    # -- for the resource ------------------------------------------------------

    @runs_inline
    def quiesce(self, pid: int) -> None:
        """Take all of `pid` off the queue for good, and continue what the queue has stopped.

        After the processes were asked to stop: what was stopped can now do as it was asked.
        """
        for _, entry in self.table.owned(pid):
            # Else it has left by itself, and there is nothing to account for.
            entry.is_taken = not entry.process.has_exited()
            self._queue.remove(entry)

    def cleanup(self, pid: int) -> CleanupStats:
        """Let go of all OS processes of `pid`, running, niceness and affinity as before."""
        try:
            return self.table.cleanup(pid)
        finally:
            self._queue.join_if_idle()

    # -- inside ----------------------------------------------------------------

    def _tune(self, pid: int, entry: RunQueueEntry, change: Callable[[], None]) -> None:
        if not self._queue.tune(entry, change):
            raise NotOwnedError("scheduler", pid, f"an entry for OS process {entry.os_pid}")

    def _died(self, entry: RunQueueEntry) -> None:
        """Forget an entry whose OS process has died; on the death watch's thread."""
        # Where it was taken off the queue its owner terminates, and the cleanup accounts for it.
        if not entry.is_taken:
            # Any pid will do: who does not own it is told who does.
            self._forget(0, entry)

    def _forget(self, pid: int, entry: RunQueueEntry) -> None:
        """Take an entry back, whoever owns it by now."""
        self.table.disown(pid, entry)
        self._queue.release(entry)


def _key(thing: object) -> object:
    return thing.key if isinstance(thing, RunQueueEntry) else thing


def _is_gone(os_pid: int) -> bool:
    """Whether there is no such OS process, or a zombie only."""
    try:
        with OsProcess.open(os_pid) as process:
            return process.has_exited()
    except ProcessLookupError:
        return True
