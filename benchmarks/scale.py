"""What an end costs when there are many others, has been many, or is one of many at a time."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import psutil
from measure import Row, Series, compare, no_collector

from probate import Ordering, OwnershipTable, ProcessManager, ResourceOrchestrator, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import CleanupStats, Process

#: Resources of each of the others.
EACH: Final = 10

LIVES: Final = 1_000_000
RESOURCES: Final = 5

#: Lives after which memory and time count; the latest dead are remembered.
WARM_UP: Final = 20_000

#: In how many parts the time per life is looked at.
PARTS: Final = 20

AT_ONCE: Final = 64


class Thing:
    """A resource that costs nothing itself, so that all there is to see is ours."""

    __slots__ = ()


class Things:
    """A kind of resource: the plugin of the tutorial, in full."""

    def __init__(self) -> None:
        self.table: OwnershipTable[Thing] = OwnershipTable("things")

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=1)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return pid in self.table

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        return self.table.cleanup(pid, lambda _: None)


def make_manager() -> tuple[ProcessManager, Things]:
    """A manager with all installed kinds, and one for things; no hook of it is ever watched."""
    things = Things()
    orchestrator = ResourceOrchestrator().discover().register(things)
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    return builder.with_deadline(None).build(), things


def populate(manager: ProcessManager, things: Things, number: int, each: int) -> list[Process]:
    """Have so many processes own so many things each."""
    made = [manager.create_process("other") for _ in range(number)]
    for process in made:
        for _ in range(each):
            things.table.add(process.pid, Thing())
    return made


def end_one(manager: ProcessManager, things: Things, each: int = EACH) -> float:
    """Make a process that owns so many things, and end it; seconds for the end."""
    (process,) = populate(manager, things, 1, each)
    with no_collector():
        started = time.perf_counter()
        manager.terminate_process(process.pid)
        return time.perf_counter() - started


# -- among others ----------------------------------------------------------------


def among_others() -> list[Row]:
    """The latency of one end among 100,000 live processes, and among ten."""
    (few, few_things), (many, many_things) = make_manager(), make_manager()
    with few, many:
        populate(few, few_things, 10, EACH)
        populate(many, many_things, 100_000, EACH)
        gc.freeze()

        def burst(manager: ProcessManager, things: Things) -> float:
            return statistics.median(end_one(manager, things) for _ in range(50))

        row = compare(
            "terminate among 100,000 others of 10 resources each",
            lambda: burst(many, many_things),
            "among 10 others",
            lambda: burst(few, few_things),
            target=1.10,
        )
        gc.unfreeze()
    return [row]


# -- one after the other -----------------------------------------------------------


def lives() -> list[Row]:
    """A million lives of five resources: memory, descriptors, and time per life."""
    manager, things = make_manager()
    this = psutil.Process()
    with manager:

        def live(number: int) -> None:
            create, end, add = manager.create_process, manager.terminate_process, things.table.add
            for _ in range(number):
                pid = create("job").pid
                for _ in range(RESOURCES):
                    add(pid, Thing())
                end(pid)

        live(WARM_UP)
        gc.collect()
        rss, fds = this.memory_info().rss, this.num_fds()
        took: list[float] = []
        for _ in range(PARTS):
            # Processor time, which tells of our own doing and of nobody else's on the machine.
            started = time.process_time()
            live(LIVES // PARTS)
            took.append((time.process_time() - started) / (LIVES // PARTS))
        gc.collect()
        growth, more_fds = this.memory_info().rss - rss, this.num_fds() - fds
    half = PARTS // 2
    first, second = statistics.median(took[:half]), statistics.median(took[half:])
    what = f"{LIVES:,} lives of {RESOURCES} resources"
    mebi = 1024 * 1024
    return [
        Row(f"{what}: RSS growth", growth, "2 MiB", 2 * mebi, growth / 2 / mebi, 1.0, "B"),
        Row(f"{what}: descriptors left", more_fds, "none", 0, more_fds, 0.0, ""),
        Row(
            f"{what}: time per life, second half",
            second,
            "first half",
            first,
            second / first,
            1.05,
            note=f"drift between neighbouring parts: {_drift(took):.3f} (median)",
        ),
    ]


def _drift(values: list[float]) -> float:
    return statistics.median(max(a, b) / min(a, b) for a, b in pairwise(values))


# -- all at once -------------------------------------------------------------------


def at_once() -> list[Row]:
    """64 processes ended at the same moment, by a thread each; and one, as often."""
    manager, things = make_manager()
    with manager:

        def together(number: int) -> float:
            processes = populate(manager, things, number, 100)
            barrier = threading.Barrier(number + 1)

            def end(process: Process) -> None:
                barrier.wait()
                manager.terminate_process(process.pid)

            threads = [threading.Thread(target=end, args=(process,)) for process in processes]
            for thread in threads:
                thread.start()
            with no_collector():
                started = time.perf_counter()
                barrier.wait()
                for thread in threads:
                    thread.join()
                return time.perf_counter() - started

        return [
            compare(
                f"{AT_ONCE} processes of 100 resources end at once, a thread each",
                lambda: together(AT_ONCE),
                f"{AT_ONCE} times one",
                lambda: sum(together(1) for _ in range(AT_ONCE)),
                target=1.2,
            )
        ]


# -- complexity --------------------------------------------------------------------


def complexity() -> list[Series]:
    """Seconds for one end, against live processes and against own resources, 10^2 to 10^6."""
    over_others = Series("others alive, one resource each", "live processes")
    over_own = Series("own resources", "resources of its own")
    manager, things = make_manager()
    with manager:
        alive = 0
        for power in range(2, 7):
            populate(manager, things, 10**power - alive, 1)
            alive = 10**power
            gc.freeze()
            over_others.points.append((alive, _median(lambda: end_one(manager, things))))
        gc.unfreeze()
    manager, things = make_manager()
    with manager:
        for power in range(2, 7):
            number = 10**power
            turns = 5 if power >= 5 else 51
            cost = _median(lambda number=number: end_one(manager, things, number), turns)  # type: ignore[misc]
            over_own.points.append((number, cost))
    return [over_others, over_own]


def _median(measure: Callable[[], float], turns: int = 201) -> float:
    return statistics.median(measure() for _ in range(turns))


def rows() -> list[Row]:
    """All rows of this module."""
    return [*among_others(), *lives(), *at_once()]
