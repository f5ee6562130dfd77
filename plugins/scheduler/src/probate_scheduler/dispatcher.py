"""Decides who runs and for how long, and stops and continues accordingly.

Everything here happens under the lock of the queue, and blocks nowhere.
"""

from __future__ import annotations

import heapq
import itertools
import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate import SchedulingPolicy
from probate_scheduler.entry import NO_SLICE, OPEN_END

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from probate.journal import Reaper
    from probate_scheduler.entry import RunQueueEntry

#: The least seconds between two looks at those that somebody else has stopped.
_HELD_RECHECK: Final = 0.05

#: Sorts those that may run; the lowest go first.
Rank = tuple[float, ...]


@final
class Dispatch(NamedTuple):
    """What one look at the queue came to, beyond what was stopped and continued."""

    #: When to look again, on the monotonic clock in seconds, if nothing changes before.
    wake_at: float
    #: Who could not be stopped for want of a reaper.
    unguarded: Sequence[RunQueueEntry] = ()


@final
class Dispatcher:
    """A policy at work."""

    def __init__(self) -> None:
        self.policy = SchedulingPolicy.ROUND_ROBIN
        #: Seconds.
        self.quantum = 0.05
        #: How many run at once.
        self.slots = len(os.sched_getaffinity(0))
        self._turns = itertools.count(1)
        #: The least virtual time of those that run: where newcomers begin.
        self._virtual_floor = 0.0

    def enqueue(self, entry: RunQueueEntry) -> None:
        """Put it behind its equals. Time that it was away earns it nothing."""
        entry.end_slice(time.monotonic())
        entry.turn = next(self._turns)
        entry.virtual_time = max(entry.virtual_time, self._virtual_floor)

    def dispatch(
        self, entries: Collection[RunQueueEntry], reaper: Reaper | None, now: float
    ) -> Dispatch:
        """Stop and continue as the policy has it."""
        wake_at = OPEN_END
        unguarded = []
        self._observe(entries, now)
        chosen = [entry for entry in entries if not (entry.is_paused or entry.is_held)]
        if len(chosen) <= self.slots:
            for entry in chosen:
                entry.open_slice(now)
        else:
            chosen = self._choose(chosen, now)
            wake_at = min(entry.slice_ends for entry in chosen)
        running = {entry.number for entry in chosen}
        # All are stopped before any is continued: there are never more than slots.
        for entry in entries:
            if entry.number in running or entry.is_held or entry.is_stopped:
                continue
            if reaper is None or entry.reaper is not reaper:
                unguarded.append(entry)
            else:
                entry.end_slice(now)
                if entry.stop() and not entry.is_paused:
                    entry.switches += 1
        for entry in chosen:
            entry.resume()
        if any(entry.is_held for entry in entries):
            wake_at = min(wake_at, now + max(self.quantum, _HELD_RECHECK))
        return Dispatch(wake_at, unguarded)

    def _observe(self, entries: Collection[RunQueueEntry], now: float) -> None:
        """See who is stopped, or continued, by somebody else."""
        is_contended = len(entries) > self.slots
        for entry in entries:
            if entry.is_held:
                if not entry.observe():
                    self.enqueue(entry)
            elif is_contended and not entry.is_stopped and entry.slice_ends <= now:
                entry.observe()

    def _choose(self, runnable: list[RunQueueEntry], now: float) -> list[RunQueueEntry]:
        for entry in runnable:
            if entry.slice_ends == OPEN_END:
                entry.slice_started, entry.slice_ends = now, now + self.quantum
            elif NO_SLICE < entry.slice_ends <= now:
                entry.end_slice(now)
                entry.turn = next(self._turns)
        least = min(entry.virtual_time for entry in runnable)
        self._virtual_floor = max(self._virtual_floor, least)
        chosen = heapq.nsmallest(self.slots, runnable, key=_RANKS[self.policy])
        for entry in chosen:
            if entry.slice_ends == NO_SLICE:
                entry.begin_slice(now, now + self.quantum)
        return chosen


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
