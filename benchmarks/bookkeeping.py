"""What bookkeeping costs: an empty termination, tracking one resource, bytes per resource.

Each row is measured beside a peer in the same run, in interleaved pairs; quote the ratios, for
absolute figures depend on the machine and its mood.

    python benchmarks/bookkeeping.py
"""

from __future__ import annotations

import gc
import statistics
import timeit
import tracemalloc
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from probate import OwnershipTable, ProcessManager, ResourceOrchestrator
from probate.admission import Admission

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = 21
NUMBER = 2000
TRACKED = 10_000


class Thing:
    """A resource that costs nothing itself; weakref.finalize wants it referable."""

    __slots__ = ("__weakref__",)


class Row(NamedTuple):
    """One comparison: medians in nanoseconds or bytes, and the median of the pairs' ratios."""

    what: str
    ours: float
    peer: str
    theirs: float
    ratio: float
    unit: str


def pairwise(what: str, ours: Callable[[], object], peer: str, theirs: Callable[[], object]) -> Row:
    """Time both in turn, `PAIRS` times."""
    timings = [
        (timeit.timeit(ours, number=NUMBER) / NUMBER, timeit.timeit(theirs, number=NUMBER) / NUMBER)
        for _ in range(PAIRS)
    ]
    ratio = statistics.median(a / b for a, b in timings)
    mine, other = (statistics.median(column) * 1e9 for column in zip(*timings, strict=True))
    return Row(what, mine, peer, other, ratio, "ns")


def tracking() -> list[Row]:
    """Track and release one resource, with the admission that every managed table has."""
    table: OwnershipTable[Thing] = OwnershipTable("things")
    admission = Admission()
    table.wire("things", admission)
    manager = Thing()
    admission.claim(manager, after=0, record_sites=False)
    pid = admission.issue(None)
    thing = Thing()

    def ours() -> None:
        table.release(pid, table.add(pid, thing))

    def exit_stack() -> None:
        with ExitStack() as stack:
            stack.callback(id, thing)
            stack.pop_all()

    def finalize() -> None:
        weakref.finalize(thing, id, None).detach()

    return [
        pairwise("track + release one resource", ours, "ExitStack.callback + pop_all", exit_stack),
        pairwise("track + release one resource", ours, "weakref.finalize + detach", finalize),
    ]


def terminations() -> list[Row]:
    """End a process that owns nothing, all installed kinds registered."""
    orchestrator = ResourceOrchestrator().discover()
    kinds = len(orchestrator)
    broadcast = orchestrator.plugin_manager.hook.has_resources
    with ProcessManager.builder().with_resource_orchestrator(orchestrator).build() as manager:

        def life() -> None:
            manager.terminate_process(manager.create_process("idle").pid)

        def cleanup() -> None:
            orchestrator.cleanup_process(manager_pid)

        manager_pid = manager.create_process("live").pid
        peer = f"one broadcast call over {kinds} kinds"
        return [
            pairwise("empty cleanup_process", cleanup, peer, lambda: broadcast(pid=manager_pid)),
            pairwise("create + terminate, empty", life, peer, lambda: broadcast(pid=manager_pid)),
        ]


def bytes_each(track: Callable[[list[Thing]], object]) -> float:
    """Bytes that tracking takes, for each of `TRACKED` things, beyond the things."""
    things = [Thing() for _ in range(TRACKED)]
    gc.collect()
    tracemalloc.start()
    kept = track(things)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return size / TRACKED


def memory() -> list[Row]:
    """Bytes per tracked resource."""

    def table(things: list[Thing]) -> object:
        made: OwnershipTable[Thing] = OwnershipTable("things")
        for thing in things:
            made.add(1, thing)
        return made

    def stack(things: list[Thing]) -> object:
        made = ExitStack()
        for thing in things:
            made.callback(id, thing)
        return made.pop_all()

    def finalizers(things: list[Thing]) -> object:
        made = [weakref.finalize(thing, id, None) for thing in things]
        for each in made:
            each.atexit = False
        return made

    ours = bytes_each(table)
    return [
        Row("memory per tracked resource", ours, name, theirs, ours / theirs, "B")
        for name, theirs in (
            ("ExitStack.callback", bytes_each(stack)),
            ("weakref.finalize", bytes_each(finalizers)),
            ("a dict entry", bytes_each(lambda things: dict(enumerate(things, 1000)))),
        )
    ]


def main() -> None:
    """Measure, and print one table."""
    rows = [*tracking(), *terminations(), *memory()]
    print(f"{'what':30} {'ours':>10} {'peer':>10} {'ratio':>7}  peer is")
    for row in rows:
        ours, theirs = f"{row.ours:.0f} {row.unit}", f"{row.theirs:.0f} {row.unit}"
        print(f"{row.what:30} {ours:>10} {theirs:>10} {row.ratio:>6.2f}x  {row.peer}")


if __name__ == "__main__":
    main()
