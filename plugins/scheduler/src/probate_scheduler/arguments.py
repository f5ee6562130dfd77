"""What a caller may ask for, checked before anything is acquired.

Each function raises TypeError or ValueError for anything else than it says.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import Final

from probate.process import MAX_QUANTUM, MIN_QUANTUM, SchedulingPolicy
from probate.system import checked_int

#: The range of cpu.weight in a cgroup v2 (kernel doc admin-guide/cgroup-v2).
checked_weight: Final = partial(checked_int, "weight", least=1, most=10_000)

checked_priority: Final = partial(checked_int, "priority")

#: From the best niceness to the worst (sched(7)).
checked_nice: Final = partial(checked_int, "nice", least=-20, most=19)


def checked_policy(policy: object) -> SchedulingPolicy:
    """Return a policy, also given as its text."""
    try:
        return SchedulingPolicy(policy)  # type: ignore[arg-type]  # a ValueError tells
    except ValueError:
        known = ", ".join(repr(str(each)) for each in SchedulingPolicy)
        raise ValueError(f"no scheduling policy {policy!r}; there are {known}") from None


def checked_quantum(quantum: object) -> float:
    """Return a time slice in seconds, of 1 ms to 1 s."""
    if not isinstance(quantum, (int, float)) or isinstance(quantum, bool):
        raise TypeError(f"quantum must be a number of seconds, got {quantum!r}")
    if not MIN_QUANTUM <= quantum <= MAX_QUANTUM:
        raise ValueError(f"quantum must be {MIN_QUANTUM} to {MAX_QUANTUM} seconds, got {quantum!r}")
    return float(quantum)


def checked_slots(slots: object) -> int:
    """Return how many may run at once; None is as many as there are CPUs for this host."""
    if slots is None:
        return len(os.sched_getaffinity(0))
    return checked_int("slots", slots, least=1)


def checked_os_pid(os_pid: object) -> int:
    """Return the pid of an OS process that may be stopped: not this one."""
    number = checked_int("an OS pid", os_pid, least=1)
    if number == os.getpid():
        raise ValueError(f"OS process {number} is this host itself: stopped, it could stop nothing")
    return number


def checked_cpus(cpus: object) -> frozenset[int]:
    """Return a set of CPU numbers that is not empty."""
    if not isinstance(cpus, Iterable) or isinstance(cpus, (str, bytes)):
        raise TypeError(f"cpus must be a collection of CPU numbers, got {cpus!r}")
    numbers = frozenset(checked_int("a CPU number", cpu, least=0) for cpu in cpus)
    if not numbers:
        raise ValueError("cpus must name a CPU to run on, and is empty")
    return numbers
