"""Many trees at once: how long an event loop is held that terminates them, and `probate ps`.

python benchmarks/trees.py
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from measure import Row, no_collector, print_rows
from spawning import each_way

from probate import ProcessManager

#: A tree has a daemon, which is nobody's child but its host's.
TREE: Final = ("sh", "-c", "setsid -f sleep 600; exec sleep 600")

TERMINATED: Final = (20, 80)
ROUNDS: Final = 5
#: Seconds for which the loop may be held.
BUDGET: Final = 0.010

LISTED: Final = 240
LISTINGS: Final = 7

PROBATE: Final = str(Path(sys.executable).with_name("probate"))

#: Seconds for what the last spawn has left to be done.
_REST: Final = 0.5


async def hold(manager: ProcessManager) -> float:
    """Terminate all; the longest time of its own processor that the loop gave nobody a turn for.

    Of a collection of the interpreter's own, which takes longer than that, it is not the cause.
    """
    longest = 0.0
    is_over = False

    async def turn() -> None:
        nonlocal longest
        before = time.thread_time()
        while not is_over:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            longest, before = max(longest, now - before), now

    ticker = asyncio.create_task(turn())
    await asyncio.sleep(0.01)
    with no_collector():
        await asyncio.gather(
            *(manager.terminate_process_async(each.pid) for each in manager.list_processes())
        )
    is_over = True
    await ticker
    return longest


def hold_once(number: int) -> float:
    """Do so with so many trees, in a manager of their own."""
    with ProcessManager.builder().with_grace(1).build() as manager:
        for _ in range(number):
            manager.spawn(TREE)
        time.sleep(_REST)
        return asyncio.run(hold(manager))


def seconds(*command: str) -> float:
    """Run a command to its end; how long it took, by the clock on the wall."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def listing(how: str) -> Row:
    """`probate ps` of one host with many trees, beside itself when it has but one."""
    with ProcessManager.builder().with_grace(0).build() as manager:
        manager.spawn(TREE)
        time.sleep(_REST)
        alone = statistics.median(seconds(PROBATE, "ps") for _ in range(LISTINGS))
        for _ in range(LISTED - 1):
            manager.spawn(TREE)
        time.sleep(_REST)
        took = statistics.median(seconds(PROBATE, "ps") for _ in range(LISTINGS))
    what = f"probate ps; {LISTED} trees, {how}"
    return Row(what, took, "probate ps; 1 tree", alone, took / alone)


def measure(how: str) -> list[Row]:
    """All of it for one way of containment."""
    rows = []
    for number in TERMINATED:
        longest = statistics.median(hold_once(number) for _ in range(ROUNDS))
        what = f"terminate_async of {number} trees, loop held; {how}"
        peer = f"{BUDGET * 1e3:.0f} ms"
        rows.append(Row(what, longest, peer, BUDGET, longest / BUDGET, target=1.0))
    return [*rows, listing(how)]


def rows() -> list[Row]:
    """All rows of this module."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Each member takes a pidfd while it is looked at.
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    return [row for each in each_way(measure) for row in each]


if __name__ == "__main__":
    print_rows(rows())
