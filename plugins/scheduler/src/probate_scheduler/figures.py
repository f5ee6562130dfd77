"""Statistics, as given out: frozen, of one moment."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Iterable

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What has been counted and timed. Times are seconds of wall-clock time."""

    #: Time slices given.
    slices: int = 0
    #: How often one was stopped in favour of another.
    switches: int = 0
    #: Not stopped by anybody, as far as was noticed.
    run_seconds: float = 0.0
    #: Stopped, waiting for its turn.
    waited_seconds: float = 0.0
    #: Paused, or held by others.
    paused_seconds: float = 0.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EntryStatistics(Figures):
    """One OS process on the run queue, since it was added."""

    os_pid: int
    priority: int
    weight: int
    state: EntryState


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStatistics(Figures):
    """The whole run queue, with the figures of those that have left it."""

    policy: SchedulingPolicy
    #: Seconds of one time slice.
    quantum: float
    #: How many OS processes may run at once.
    slots: int
    #: How many are on the queue.
    entries: int


def sum_of(all_figures: Iterable[Figures]) -> dict[str, Any]:
    """The sums, by name."""
    each = list(all_figures)
    return {field.name: sum(getattr(f, field.name) for f in each) for field in fields(Figures)}
