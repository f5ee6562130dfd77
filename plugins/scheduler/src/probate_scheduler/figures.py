"""Statistics, as given out: frozen, of one moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from probate import SchedulingPolicy


class EntryState(StrEnum):
    """Where an OS process stands with the scheduler."""

    #: In its time slice, or nobody else wants to run.
    RUNNING = "running"
    #: Stopped by the scheduler, until its turn comes.
    WAITING = "waiting"
    #: Stopped by `pause`, until `resume`.
    PAUSED = "paused"
    #: Stopped by itself, by somebody else, or by a debugger: theirs to continue.
    HELD = "held"
    #: Off the queue for good.
    REMOVED = "removed"


@final
@dataclass(frozen=True, slots=True)
class EntryStatistics:
    """One OS process on the run queue. Times are seconds of wall-clock time since it was added."""

    os_pid: int
    priority: int
    weight: int
    state: EntryState
    #: Time slices given to it.
    slices: int
    #: How often it was stopped in favour of another.
    switches: int
    #: Not stopped by anybody, as far as was noticed.
    run_seconds: float
    #: Stopped, waiting for its turn.
    waited_seconds: float
    #: Paused, or held by others.
    paused_seconds: float


@final
@dataclass(frozen=True, slots=True)
class SchedulerStatistics:
    """The whole run queue. Counts and times include the entries that have left it."""

    policy: SchedulingPolicy
    #: Seconds of one time slice.
    quantum: float
    #: How many OS processes may run at once.
    slots: int
    #: How many are on the queue.
    entries: int
    slices: int
    switches: int
    run_seconds: float
    waited_seconds: float
    paused_seconds: float
