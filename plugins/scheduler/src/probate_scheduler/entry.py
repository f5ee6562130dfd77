"""One OS process on the run queue: stopped and continued, and accounted for."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Final, final

from probate_scheduler import signalling
from probate_scheduler.figures import EntryState, EntryStatistics
from probate_scheduler.tuning import Setting, affinity_of, niceness_of

if TYPE_CHECKING:
    from probate import OsProcess
    from probate.journal import Reaper

#: The end of a slice that lasts until somebody else wants to run.
OPEN_END: Final = float("inf")
#: The end of a slice that is over, or was never begun.
NO_SLICE: Final = float("-inf")


#: Numbers of entries.
_NUMBERS: Final = itertools.count(1)


@final
class RunQueueEntry:
    """An OS process on the run queue, as `SchedulerManager.find` gives it.

    What is public may be read at any time; it changes under the queue's lock, by the queue.
    """

    #: Who continues it should this host die.
    reaper: Reaper | None = None
    is_paused: bool = False
    #: Whether it was stopped by the queue.
    is_stopped: bool = False
    #: Whether it was found stopped otherwise.
    is_held: bool = False
    #: Whether it has left the queue, which is for good.
    is_removed: bool = False
    #: Whether it was taken off while its process lived, since its owner terminates.
    is_taken: bool = False
    #: Its place among equals: the lower, the longer it has waited.
    turn: int = 0
    #: On the monotonic clock, in seconds.
    slice_started: float = 0.0
    slice_ends: float = NO_SLICE
    #: Seconds run in contended slices, divided by the weight at the time.
    virtual_time: float = 0.0
    slices: int = 0
    switches: int = 0
    run_seconds: float = 0.0
    waited_seconds: float = 0.0
    paused_seconds: float = 0.0
    _stopped_group: bool = False

    def __init__(self, process: OsProcess, priority: int, weight: int) -> None:
        self.process = process
        self.priority = priority
        self.weight = weight
        #: Never used again, unlike a pid: names it to the reaper.
        self.number = next(_NUMBERS)
        #: Niceness and affinity, as they were.
        self.niceness: Setting[int] = niceness_of(process)
        self.affinity: Setting[frozenset[int]] = affinity_of(process)
        self._since = time.monotonic()

    def __repr__(self) -> str:
        scheduling = f"priority {self.priority}, weight {self.weight}"
        return f"OS process {self.os_pid}, {scheduling}, {self.state}"

    @property
    def os_pid(self) -> int:
        """Its pid; its own for as long as it is on the queue."""
        return self.process.os_pid

    @property
    def key(self) -> int:
        """What tells its process from all others, of the same pid as well."""
        return key_of(self.os_pid, self.process.start_time)

    @property
    def state(self) -> EntryState:
        """Where it stands."""
        if self.is_removed:
            return EntryState.REMOVED
        if self.is_paused:
            return EntryState.PAUSED
        if self.is_held:
            return EntryState.HELD
        return EntryState.WAITING if self.is_stopped else EntryState.RUNNING

    # -- stopping and continuing; the queue's lock is held ---------------------

    def observe(self) -> bool:
        """See whether somebody else has stopped it, or has continued it since: `is_held`."""
        condition = None if self.is_stopped else signalling.condition_of(self.process)
        is_held = condition is not None and condition.is_stopped
        if is_held != self.is_held:
            self.account()
            self.is_held = is_held
        return is_held

    def stop(self) -> bool:
        """Stop it, unless somebody else has: then it stays theirs to continue. False if not."""
        condition = signalling.condition_of(self.process)
        if self.is_stopped or condition is None:
            return False
        self.account()
        self.is_held = condition.is_stopped
        if not self.is_held:
            # Said first: should anything come in between, it is continued once too often.
            self.is_stopped = True
            self._stopped_group = condition.leads_group
            try:
                signalling.stop(self.process, group=self._stopped_group)
            except PermissionError:
                # It has become another user's, and runs on.
                self.is_stopped = False
        return self.is_stopped

    def resume(self) -> None:
        """Continue it, if it was stopped by the queue."""
        if self.is_stopped:
            self.account()
            signalling.resume(self.process, group=self._stopped_group)
            self.is_stopped = False

    # -- time ----------------------------------------------------------------

    def account(self) -> None:
        """Add up the time since the last change. Comes before each change."""
        now = time.monotonic()
        passed, self._since = now - self._since, now
        match self.state:
            case EntryState.RUNNING:
                self.run_seconds += passed
            case EntryState.WAITING:
                self.waited_seconds += passed
            case EntryState.PAUSED | EntryState.HELD:
                self.paused_seconds += passed
            case EntryState.REMOVED:
                pass

    def begin_slice(self, now: float, ends: float) -> None:
        """Let it run until `ends`, on the monotonic clock."""
        self.slices += 1
        self.slice_started, self.slice_ends = now, ends

    def open_slice(self, now: float) -> None:
        """Let it run until somebody else wants to: nothing is charged for that."""
        if self.slice_ends == NO_SLICE:
            self.slices += 1
        self.charge(now)
        self.slice_ends = OPEN_END

    def end_slice(self, now: float) -> None:
        """Charge it for what it had of its slice."""
        self.charge(now)
        self.slice_ends = NO_SLICE

    def charge(self, now: float) -> None:
        """Charge it for what it had so far of a slice that others wait for the end of."""
        if self.slice_ends not in (NO_SLICE, OPEN_END):
            self.virtual_time += (now - self.slice_started) / self.weight
            self.slice_started = now

    def statistics(self) -> EntryStatistics:
        """Its figures of this moment."""
        self.account()
        return EntryStatistics(
            os_pid=self.os_pid,
            priority=self.priority,
            weight=self.weight,
            state=self.state,
            slices=self.slices,
            switches=self.switches,
            run_seconds=self.run_seconds,
            waited_seconds=self.waited_seconds,
            paused_seconds=self.paused_seconds,
        )


def key_of(os_pid: int, start_time: int) -> int:
    """One number for both. No pid has more than 32 bits."""
    return start_time << 32 | os_pid
