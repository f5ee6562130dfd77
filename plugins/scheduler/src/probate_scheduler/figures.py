"""Statistics, as given out: frozen, of one moment."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
class EntryStatistics(NamedTuple):
    """One OS process on the run queue, since it was added. Times are seconds of wall-clock time."""

    os_pid: int
    priority: int
    weight: int
    state: EntryState
    #: Time slices given.
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
class SchedulerStatistics(NamedTuple):
    """The whole run queue, and the sums of all entries, with those that have left it."""

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


#: What is counted and timed.
_SUMMED: Final = ("slices", "switches", "run_seconds", "waited_seconds", "paused_seconds")


def sums_of(entries: Iterable[EntryStatistics], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sums, by name, with those `before`."""
    each = list(entries)
    return {name: sum((getattr(e, name) for e in each), before.get(name, 0)) for name in _SUMMED}
