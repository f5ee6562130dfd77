"""Who runs next. The lowest rank does."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

from probate import SchedulingPolicy
from probate_scheduler.entry import NO_SLICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from probate_scheduler.entry import RunQueueEntry

Rank = tuple[float, ...]


def _round_robin(entry: RunQueueEntry) -> Rank:
    return (_waits(entry), entry.turn)


def _priority(entry: RunQueueEntry) -> Rank:
    # A higher priority does not wait for the end of a lower one's slice.
    return (-entry.priority, _waits(entry), entry.turn)


def _fair(entry: RunQueueEntry) -> Rank:
    return (_waits(entry), entry.virtual_time, entry.turn)


def _waits(entry: RunQueueEntry) -> bool:
    """Whether it is out of its slice; who is in it may finish it."""
    return entry.slice_ends == NO_SLICE


_RANKS: Final[dict[SchedulingPolicy, Callable[[RunQueueEntry], Rank]]] = {
    SchedulingPolicy.ROUND_ROBIN: _round_robin,
    SchedulingPolicy.PRIORITY: _priority,
    SchedulingPolicy.FAIR: _fair,
}


def choose(
    policy: SchedulingPolicy, runnable: Iterable[RunQueueEntry], slots: int
) -> list[RunQueueEntry]:
    """The entries that run now, at most `slots`."""
    return heapq.nsmallest(slots, runnable, key=_RANKS[policy])
