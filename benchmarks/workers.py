"""How soon the death of a spawned worker is settled, and what a spawn takes, with many alive.

A bystander kills, a process of its own, which waits for nobody's interpreter: it tells when it
has killed, and when each pidfd was readable. From then on it is ours, until `on_terminated` calls.

    python benchmarks/workers.py
"""

from __future__ import annotations

import os
import random
import resource
import select
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple, final

from measure import Row, Series
from spawning import each_way

from probate import ProcessManager

if TYPE_CHECKING:
    from probate import Process

ALIVE: Final = 1000
#: One at a time, in a round; the machine may have other things to do in one round, not in all.
KILLS: Final = 200
ROUNDS: Final = 2
#: Those that are compared with the peer.
PAIRS: Final = 41
BURST: Final = 64
BURSTS: Final = 3

#: Seconds within which the 99th percentile is to be settled.
BUDGET: Final = 0.005

WORKER: Final = ("sleep", "600")

#: Seconds for what the last spawn has left to be done.
_REST: Final = 0.5

#: Of how many spawns the median is taken, at each number of workers alive.
SPAWNS: Final = 15

_KILLER: Final = """
import os, select, signal, sys, time
for line in sys.stdin:
    pids = {os.pidfd_open(int(word)): word for word in line.split()}
    with select.epoll() as epoll:
        for pidfd in pids:
            epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)
        killed = time.monotonic_ns()
        for pidfd in pids:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        told = {}
        while len(told) < len(pids):
            for pidfd, _ in epoll.poll():
                told[pidfd] = time.monotonic_ns()
    for pidfd in pids:
        os.close(pidfd)
    print(killed, *(f"{pids[pidfd]}:{at}" for pidfd, at in told.items()), flush=True)
"""


@final
class Told(NamedTuple):
    """What the bystander has seen, in nanoseconds of CLOCK_MONOTONIC."""

    killed: int
    #: When the pidfd of each was readable, by pid.
    readable: dict[int, int]


@final
class Killer:
    """The bystander."""

    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _KILLER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def kill(self, os_pids: list[int]) -> None:
        """Have them killed, all at one moment."""
        assert self._popen.stdin
        print(*os_pids, file=self._popen.stdin, flush=True)

    def told(self) -> Told:
        """What it has seen of that; to be asked for later, so as not to wake up meanwhile."""
        assert self._popen.stdout
        killed, *readable = self._popen.stdout.readline().split()
        pairs = (word.split(":") for word in readable)
        return Told(int(killed), {int(os_pid): int(at) for os_pid, at in pairs})

    def close(self) -> None:
        """End it."""
        self._popen.communicate()


@final
class Crew:
    """So many workers of one manager."""

    def __init__(self, manager: ProcessManager, killer: Killer) -> None:
        self._manager = manager
        self._killer = killer
        self._random = random.Random(1)
        self.workers: list[Process] = []

    def grow(self, number: int) -> None:
        """Spawn until there are so many."""
        while len(self.workers) < number:
            self.workers.append(self._manager.spawn(WORKER))

    def release_all(self, number: int) -> tuple[float, float]:
        """Kill so many at one moment; seconds from the first readable, and from the kill."""
        settled: dict[int, int] = {}
        all_settled = threading.Event()

        def note(os_pid: int) -> None:
            settled[os_pid] = time.monotonic_ns()
            if len(settled) == number:
                all_settled.set()

        victims: list[int] = []
        for _ in range(number):
            place = self._random.randrange(len(self.workers))
            self.workers[place], self.workers[-1] = self.workers[-1], self.workers[place]
            victim = self.workers.pop()
            assert victim.os_pid is not None
            victims.append(victim.os_pid)
            victim.on_terminated(lambda os_pid=victim.os_pid: note(os_pid))  # type: ignore[misc]
        self._killer.kill(victims)
        assert all_settled.wait(60), "a worker was never settled"
        told = self._killer.told()
        last = max(settled.values())
        return (last - min(told.readable.values())) / 1e9, (last - told.killed) / 1e9


def reap_bare(killer: Killer) -> float:
    """The peer: a thread that waits for one pidfd, and reaps. Seconds from the kill."""
    popen = subprocess.Popen(WORKER)
    reaped = 0

    def wait() -> None:
        nonlocal reaped
        pidfd = os.pidfd_open(popen.pid)
        watched = select.poll()
        watched.register(pidfd, select.POLLIN)
        ready.set()
        watched.poll()
        popen.wait()
        reaped = time.monotonic_ns()
        os.close(pidfd)

    ready = threading.Event()
    thread = threading.Thread(target=wait)
    thread.start()
    ready.wait()
    killer.kill([popen.pid])
    thread.join()
    return (reaped - killer.told().killed) / 1e9


def spawn_bare() -> float:
    """The peer: subprocess alone, by fork(2) as ours, for a process that nobody contains."""
    started = time.perf_counter()
    popen = subprocess.Popen(WORKER, start_new_session=True, group=os.getegid())
    took = time.perf_counter() - started
    popen.kill()
    popen.wait()
    return took


def spawn_ours(manager: ProcessManager, crew: Crew) -> float:
    """Ours: one worker more."""
    started = time.perf_counter()
    worker = manager.spawn(WORKER)
    took = time.perf_counter() - started
    crew.workers.append(worker)
    return took


def measure(how: str) -> tuple[list[Row], Series]:
    """All of it for one way of containment."""
    series = Series(f"spawn, {how}", "workers alive")
    killer = Killer()
    try:
        with ProcessManager.builder().build() as manager:
            crew = Crew(manager, killer)
            spawns: list[tuple[float, float]] = []
            for alive in (10, 100, ALIVE):
                crew.grow(alive - SPAWNS)
                spawns = [(spawn_ours(manager, crew), spawn_bare()) for _ in range(SPAWNS)]
                series.points.append((alive, statistics.median(ours for ours, _ in spawns)))
            rounds = []
            for _ in range(ROUNDS):
                crew.grow(ALIVE + KILLS)
                time.sleep(_REST)
                rounds.append([crew.release_all(1)[0] for _ in range(KILLS)])
            crew.grow(ALIVE + PAIRS + BURSTS * BURST)
            time.sleep(_REST)
            pairs = [(crew.release_all(1)[1], reap_bare(killer)) for _ in range(PAIRS)]
            bursts = [crew.release_all(BURST)[0] for _ in range(BURSTS)]
    finally:
        killer.close()
    return _rows(how, rounds, pairs, bursts, spawns), series


def _rows(
    how: str,
    rounds: list[list[float]],
    pairs: list[tuple[float, float]],
    bursts: list[float],
    spawns: list[tuple[float, float]],
) -> list[Row]:
    from_kill, bare = zip(*pairs, strict=True)
    one = min(statistics.median(each) for each in rounds)
    # Of all kills, not of the better round: whoever waits has no second try.
    late = statistics.quantiles([took for each in rounds for took in each], n=100)[98]
    lates = [statistics.quantiles(each, n=100)[98] for each in rounds]
    burst = statistics.median(bursts)
    ours, theirs = (statistics.median(column) for column in zip(*spawns, strict=True))
    alive = f"{ALIVE} alive, {how}"
    return [
        Row(
            f"a worker's death to settled, p99; {alive}",
            late,
            f"{BUDGET * 1e3:.0f} ms",
            BUDGET,
            late / BUDGET,
            target=1.0,
            note=f"median {one * 1e3:.2f} ms; p99 of each round: "
            + ", ".join(f"{each * 1e3:.2f} ms" for each in lates),
        ),
        Row(
            f"from the kill to settled; {alive}",
            statistics.median(from_kill),
            "to reaped by a bare thread",
            statistics.median(bare),
            statistics.median(a / b for a, b in pairs),
        ),
        Row(
            f"{BURST} at one moment; {alive}",
            burst,
            f"{BURST} times one alone",
            BURST * one,
            burst / (BURST * one),
            target=1.2,
        ),
        Row(
            f"spawn; {alive}",
            ours,
            "subprocess.Popen by fork(2)",
            theirs,
            statistics.median(a / b for a, b in spawns),
        ),
    ]


def measured() -> tuple[list[Row], list[Series]]:
    """All rows and lines of this module."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Each worker takes a pidfd.
    wanted = 4 * ALIVE
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, wanted)), hard))
    try:
        found = each_way(measure)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return [row for each, _ in found for row in each], [series for _, series in found]


def rows() -> list[Row]:
    """All rows of this module."""
    return measured()[0]


def main() -> None:
    """Measure, and print one table."""
    found, lines = measured()
    for row in found:
        verdict = {None: "", True: "holds", False: "MISSED"}[row.holds]
        print(
            f"{row.what:58} {row.ours * 1e3:8.2f} ms {row.theirs * 1e3:8.2f} ms "
            f"{row.ratio:6.2f}x {verdict:6}  {row.peer}"
        )
        if row.note:
            print(f"{'':58} {row.note}")
    for line in lines:
        points = ", ".join(f"{number}: {seconds * 1e3:.2f} ms" for number, seconds in line.points)
        print(f"{line.title}, by {line.over}: {points}")


if __name__ == "__main__":
    main()
