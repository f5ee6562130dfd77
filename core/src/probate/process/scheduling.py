"""How processor time is shared out among spawned processes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple, final

#: The shortest and the longest time slice, in seconds.
MIN_QUANTUM: Final = 0.001
MAX_QUANTUM: Final = 1.0


class SchedulingPolicy(StrEnum):
    """Says in which order a scheduler lets processes run."""

    #: One after the other, each for one quantum.
    ROUND_ROBIN = "round_robin"
    #: The highest priority first; equals in turn.
    PRIORITY = "priority"
    #: In proportion to weights.
    FAIR = "fair"


@final
class Scheduling(NamedTuple):
    """Says how the processes that a manager spawns are scheduled."""

    policy: SchedulingPolicy
    #: Seconds.
    quantum: float
