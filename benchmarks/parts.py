"""Where the time of a termination goes: its parts, beside the bare loop.

    python benchmarks/parts.py [SOCKETS]

Each part contains those that are indented below it. The least of many is shown, which is what it
takes when nothing else is going on, and the median. Looking on takes some time itself.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import closing

from probate import OwnershipTable, ProcessManager
from probate.ownership.cleanup import Cleanup
from probate.plugins.registry import PluginRegistry
from probate.process import manager, terminator
from probate.termination.steps import Termination
from probate_sockets import many

if TYPE_CHECKING:
    from collections.abc import Callable

TURNS: Final = 400

#: What is looked at: how deep it lies, whose it is, its name.
PARTS: Final[tuple[tuple[int, Any, str], ...]] = (
    (0, manager.ProcessManager, "terminate_process"),
    (1, terminator.Terminator, "_begin"),
    (1, PluginRegistry, "kinds_in_use"),
    (1, PluginRegistry, "quiesce"),
    (1, PluginRegistry, "clean"),
    (2, OwnershipTable, "cleanup"),
    (3, Cleanup, "at_once"),
    (4, many, "_is_simple"),
    (4, many, "_close_descriptors"),
    (1, Termination, "_account"),
    (1, terminator.Terminator, "_conclude"),
)


def watch(owner: Any, name: str, took: list[float]) -> None:
    """Have the seconds of each call of a function noted."""
    function: Callable[..., object] = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> object:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            took.append(time.perf_counter() - started)

    setattr(owner, name, watched)


def main() -> None:
    """Measure, and print."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    if number < 2:
        sys.exit("SOCKETS must be at least 2: one alone is not closed together with others")
    bare = sorted(closing.close_all(number) for _ in range(TURNS))
    took: list[list[float]] = [[] for _ in PARTS]
    with ProcessManager.builder().build() as processes:
        for _ in range(20):
            closing.terminate_all(processes, number)
        for (_, owner, name), times in zip(PARTS, took, strict=True):
            watch(owner, name, times)
        for _ in range(TURNS):
            closing.terminate_all(processes, number)
    print(f"{number} UDP sockets, microseconds{'':19} least  median  calls")
    print(f"{'bare loop of close()':44} {bare[0] * 1e6:8.1f} {bare[TURNS // 2] * 1e6:7.1f}")
    for (depth, _, name), times in zip(PARTS, took, strict=True):
        times.sort()
        label = "  " * depth + name.strip("_")
        least, median = times[0] * 1e6, times[len(times) // 2] * 1e6
        print(f"{label:44} {least:8.1f} {median:7.1f} {len(times) // TURNS:6}")


if __name__ == "__main__":
    main()
