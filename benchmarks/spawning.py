"""What a spawn takes beside subprocess.Popen as it is, in hosts of several sizes.

python benchmarks/spawning.py
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from measure import Row, print_rows

from probate import ProcessManager
from probate_processes.cgroup import Cgroup
from probate_processes.procfs import cgroup_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

PAIRS: Final = 101

WORKER: Final = ("sleep", "600")

#: MiB that a host has touched, for what a fork(2) would have to copy the tables of.
MEMORY: Final = (40, 400)
PAGE: Final = 4096


def spawn_default() -> float:
    """The peer: subprocess as it is, by vfork(2), in this host's session."""
    started = time.perf_counter()
    popen = subprocess.Popen(WORKER)
    took = time.perf_counter() - started
    popen.kill()
    popen.wait()
    return took


def spawn_alone(manager: ProcessManager) -> float:
    """Ours: one worker, ended at once."""
    started = time.perf_counter()
    worker = manager.spawn(WORKER)
    took = time.perf_counter() - started
    worker.terminate()
    return took


def until_contained(manager: ProcessManager, is_inside: threading.Event) -> float:
    """From the call of `spawn` until the kernel has moved the worker into its cgroup."""
    is_inside.clear()
    started = time.perf_counter()
    worker = manager.spawn(WORKER)
    assert is_inside.wait(60), "it was never contained"
    took = time.perf_counter() - started
    worker.terminate()
    return took


def measure_memory(how: str) -> list[Row]:
    """What a spawn takes in hosts of several sizes, and how long it is until it is contained."""
    rows = []
    is_inside = threading.Event()
    add = Cgroup.add

    def tell(cgroup: Cgroup, os_pid: int) -> bool:
        found = add(cgroup, os_pid)
        is_inside.set()
        return found

    for mebibytes in MEMORY:
        ballast = bytearray(mebibytes << 20)
        ballast[::PAGE] = b"\1" * len(ballast[::PAGE])
        with ProcessManager.builder().with_grace(0).build() as manager:
            manager.spawn(WORKER)
            pairs = [(spawn_alone(manager), spawn_default()) for _ in range(PAIRS)]
            until: list[float] = []
            if how == "cgroup":
                Cgroup.add = tell  # type: ignore[method-assign,assignment]  # to know when
                try:
                    until = [until_contained(manager, is_inside) for _ in range(PAIRS)]
                finally:
                    Cgroup.add = add  # type: ignore[method-assign]
        del ballast
        rows += _memory_rows(f"{mebibytes} MiB touched, {how}", pairs, until)
    return rows


def _memory_rows(where: str, pairs: list[tuple[float, float]], until: list[float]) -> list[Row]:
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    rows = [
        Row(
            f"spawn; {where}",
            ours,
            "subprocess.Popen as it is",
            theirs,
            statistics.median(a / b for a, b in pairs),
            target=2.0,
            note=f"{(ours - theirs) * 1e3:+.2f} ms",
        )
    ]
    if until:
        inside = statistics.median(until)
        rows.append(
            Row(f"until it is contained; {where}", inside, "spawn returns", ours, inside / ours)
        )
    return rows


@contextlib.contextmanager
def _without_cgroups() -> Iterator[None]:
    create = Cgroup.create
    Cgroup.create = lambda _: None  # type: ignore[method-assign,assignment]  # as if it had none
    try:
        yield
    finally:
        Cgroup.create = create  # type: ignore[method-assign]


def each_way(measure: Callable[[str], T]) -> list[T]:
    """Measure without a cgroup, and with one, if this machine has any that may be written to."""
    with _without_cgroups():
        found = [measure("no cgroup")]
    cgroup = Cgroup.create(cgroup_of(os.getpid()))
    if cgroup is not None and cgroup.make():
        cgroup.remove()
        found.append(measure("cgroup"))
    return found


def rows() -> list[Row]:
    """All rows of this module."""
    return [row for each in each_way(measure_memory) for row in each]


if __name__ == "__main__":
    print_rows(rows())
