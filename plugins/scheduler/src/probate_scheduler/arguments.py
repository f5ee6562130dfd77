"""What a caller may ask for, checked before anything is acquired."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from probate import SchedulingPolicy
from probate.process.scheduling import MAX_QUANTUM, MIN_QUANTUM

#: The range of cpu.weight in a cgroup v2 (kernel doc admin-guide/cgroup-v2).
MAX_WEIGHT: Final = 10_000

#: The best and the worst niceness (sched(7)).
_NICEST, _LEAST_NICE = 19, -20


def checked_policy(policy: object) -> SchedulingPolicy:
    """Return a policy, also given as its text. Raises ValueError for what is none."""
    try:
        return SchedulingPolicy(policy)  # type: ignore[arg-type]  # a ValueError tells
    except ValueError:
        known = ", ".join(repr(str(each)) for each in SchedulingPolicy)
        raise ValueError(f"no scheduling policy {policy!r}; there are {known}") from None


def checked_quantum(quantum: object) -> float:
    """Return a time slice in seconds. Raises TypeError, or ValueError out of 1 ms to 1 s."""
    if not isinstance(quantum, (int, float)) or isinstance(quantum, bool):
        raise TypeError(f"quantum must be a number of seconds, got {quantum!r}")
    if not MIN_QUANTUM <= quantum <= MAX_QUANTUM:
        raise ValueError(f"quantum must be {MIN_QUANTUM} to {MAX_QUANTUM} seconds, got {quantum!r}")
    return float(quantum)


def checked_slots(slots: object) -> int:
    """Return how many may run at once; None is as many as there are CPUs for this host.

    Raises TypeError or ValueError for what is no number of at least 1.
    """
    if slots is None:
        return len(os.sched_getaffinity(0))
    return _int_within("slots", slots, 1, None)


def checked_priority(priority: object) -> int:
    """Return a priority: any int. Raises TypeError."""
    return _int_within("priority", priority, None, None)


def checked_weight(weight: object) -> int:
    """Return a weight, 1 to 10000. Raises TypeError or ValueError."""
    return _int_within("weight", weight, 1, MAX_WEIGHT)


def checked_os_pid(os_pid: object) -> int:
    """Return the pid of an OS process that may be stopped: not this one.

    Raises TypeError or ValueError.
    """
    number = _int_within("an OS pid", os_pid, 1, None)
    if number == os.getpid():
        raise ValueError(f"OS process {number} is this host itself: stopped, it could stop nothing")
    return number


def checked_nice(nice: object) -> int:
    """Return a niceness, -20 to 19. Raises TypeError or ValueError."""
    return _int_within("nice", nice, _LEAST_NICE, _NICEST)


def checked_cpus(cpus: object) -> frozenset[int]:
    """Return a set of CPU numbers. Raises TypeError or ValueError, also for an empty one."""
    if not isinstance(cpus, Iterable) or isinstance(cpus, (str, bytes)):
        raise TypeError(f"cpus must be a collection of CPU numbers, got {cpus!r}")
    numbers = frozenset(_int_within("a CPU number", cpu, 0, None) for cpu in cpus)
    if not numbers:
        raise ValueError("cpus must name a CPU to run on, and is empty")
    return numbers


def _int_within(name: str, value: object, low: int | None, high: int | None) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if low is not None and high is not None and not low <= value <= high:
        raise ValueError(f"{name} must be {low} to {high}, got {value}")
    if low is not None and value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    return value
