"""The journal: what it costs to note a thing, to sweep many, and to have a reaper asleep."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING, Final

from measure import Row, compare, loop, no_collector

from probate import ProcessManager, ResourceOrchestrator
from probate.journal.arming import Reaper
from probate.journal.host import HostJournal
from probate.journal.named import Named
from probate.settlement import sweep

if TYPE_CHECKING:
    from collections.abc import Callable

#: Segments, or rows, in a run.
SEGMENTS: Final = 200
#: Those of a sweep.
ROWS: Final = 10_000

#: Bytes that a reaper may take.
MIB_12: Final = 12 << 20

#: A host with so many FIFOs and a journal in a folder; killed with its reaper by then.
HOST: Final = """
import os, sys
from probate import ProcessManager, ResourceOrchestrator
orchestrator = ResourceOrchestrator().discover(only=["files"])
builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
manager = builder.with_journal(sys.argv[1], reaper=False).build()
process = manager.create_process("host")
for number in range(int(sys.argv[3])):
    path = os.path.join(sys.argv[2], str(number))
    orchestrator["files"].manager.mkfifo(process.pid, path)
os.kill(os.getpid(), 9)
"""


def segments(manager: ProcessManager) -> Callable[[], float]:
    """Make a segment and give it back: the seconds of one."""
    memory = manager.orchestrator["memory"].manager
    process = manager.create_process("segments")

    def one() -> None:
        memory.close(process.pid, memory.create_shared_memory(process.pid, size=4096))

    return loop(one, SEGMENTS)


def bare_segment() -> None:
    """What the standard library does of it, and its tracker."""
    segment = SharedMemory(create=True, size=4096)
    segment.close()
    segment.unlink()


def writes(journal: HostJournal) -> Callable[[], float]:
    """Note an intent, confirm it, and delete it: the seconds of the three."""
    named: Named[None] = Named(
        "a thing", {"path": "/nowhere/at/all"}, lambda _: {"handle": "fid:1:00"}
    )
    owner = journal.note_owner({"pid": 1, "name": "owner", "key": None, "parent": None})

    def three() -> None:
        row = journal.intend("things", owner, named)
        row.confirm(None)
        row.delete()

    return loop(three, SEGMENTS)


def swept(orchestrator: ResourceOrchestrator, folder: Path) -> float:
    """Sweep a host that has died with so many FIFOs; the seconds of all."""
    state, things = folder / "state", folder / "things"
    things.mkdir()
    command = [sys.executable, "-c", HOST, str(state), str(things), str(ROWS)]
    subprocess.run(command, check=False)
    with no_collector():
        started = time.perf_counter()
        accounts = sweep(orchestrator, str(state))
        took = time.perf_counter() - started
    assert sum(str(row.outcome) == "released" for each in accounts for row in each.rows) == ROWS
    things.rmdir()
    return took


def unlinked(folder: Path) -> float:
    """Unlink as many, and know nothing of them."""
    things = folder / "things"
    things.mkdir()
    paths = [things / str(number) for number in range(ROWS)]
    for path in paths:
        os.mkfifo(path)
    with no_collector():
        started = time.perf_counter()
        for path in paths:
            path.unlink()
        took = time.perf_counter() - started
    things.rmdir()
    return took


def armed() -> tuple[float, int]:
    """Start a reaper; the seconds until it is ready, and its resident bytes then."""
    started = time.perf_counter()
    reaper = Reaper.start()
    took = time.perf_counter() - started
    try:
        info = Path(f"/proc/self/fdinfo/{reaper.pidfd}").read_text()
        os_pid = next(line.split()[1] for line in info.splitlines() if line.startswith("Pid:"))
        status = Path(f"/proc/{os_pid}/status").read_text()
        resident = next(line.split()[1] for line in status.splitlines() if "VmRSS" in line)
    finally:
        reaper.close()
    return took, int(resident) * 1024


def rows() -> list[Row]:
    """All rows of this module."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        builder = ProcessManager.builder
        with_one = stack.enter_context(builder().with_journal(folder / "state").build())
        without = stack.enter_context(builder().without_journal().build())
        journal = HostJournal(str(folder / "writes"), has_reaper=False)
        stack.callback(journal.close)
        journal.open()
        orchestrator = ResourceOrchestrator().discover(only=["files"])

        def in_a_new_folder(measure: Callable[[Path], float]) -> float:
            with tempfile.TemporaryDirectory() as place:
                return measure(Path(place))

        starts = [armed() for _ in range(11)]
        ready = statistics.median(took for took, _ in starts)
        resident = max(size for _, size in starts)
        segment, journaled = "make and give back a segment, journaled", segments(with_one)
        bare = loop(bare_segment, SEGMENTS)
        return [
            compare(segment, journaled, "without a journal", segments(without), target=1.5),
            compare(segment, journaled, "multiprocessing.SharedMemory", bare, target=2.0),
            compare("the three writes of a row", writes(journal), "25 us", lambda: 25e-6, target=1),
            compare(
                f"sweep of {ROWS:,} rows of a dead host",
                lambda: in_a_new_folder(partial(swept, orchestrator)),
                "bare loop of unlink()",
                lambda: in_a_new_folder(unlinked),
                target=2.0,
                pairs=5,
                warm_up=0,
            ),
            Row("a reaper is armed", ready, "60 ms", 0.06, ready / 0.06, target=1.0),
            Row("memory of a reaper", resident, "12 MiB", MIB_12, resident / MIB_12, 1.0, "B"),
        ]


if __name__ == "__main__":
    print(*rows(), sep="\n")
