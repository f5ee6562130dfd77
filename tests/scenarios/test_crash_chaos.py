"""Hosts killed at random moments, with and without their reapers: nothing is left unsaid."""

from __future__ import annotations

import heapq
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self, final

import pytest
from chaos_decoys import Decoys
from chaos_progress import told
from chaos_victims import is_there, left_of, remove, seconds_of
from journal_hosts import PATIENCE, kill_all, wait_while

from probate.journal.folders import KEPT, host_folders
from probate.journal.quarantine import quarantine_name
from probate.settlement import HostState, read_accounts, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from probate import ResourceOrchestrator
    from probate.settlement import HostAccount, RowAccount

ROUNDS = int(os.environ.get("N", "1000")) if os.environ.get("PROBATE_CHAOS") else 50

#: How many are killed until a sweep, and live at a time; and of how many one has a reaper.
_BATCH = 10
_ALIVE = 2
_REAPERS = 5

#: All kinds whose things outlive a host; so few hosts do not come to make some of each.
_KINDS = ["files", "ipc", "memory", "mmap", "processes", "sockets"]
_FEW = 100


@final
class Victims:
    """The program that forks hosts from one that has everything imported."""

    def __init__(self, state: Path, folder: Path) -> None:
        program = Path(__file__).parents[1] / "support/chaos_victims.py"
        self._process = subprocess.Popen(
            [sys.executable, str(program), str(state), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the test alone, which ends them.
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def start(self, seed: int, *, has_reaper: bool) -> int:
        """Fork a host; return its pid."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seed} {int(has_reaper)}\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], PATIENCE)[0]
        return int(self._process.stdout.readline())


def sleepers_of(seeds: list[int]) -> list[int]:
    """The programs that hosts of these seeds have started, and that run still."""
    wanted = {seconds_of(seed).encode() for seed in seeds}
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208  as above
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if len(words) > 1 and words[1] in wanted:
                found.append(int(name))
    return found


def settled(orchestrator: ResourceOrchestrator, state: Path) -> list[HostAccount]:
    """Sweep until nobody's estate is left to be settled; return what was found.

    Reapers, and what new hosts start, settle at the same time.
    """
    accounts: list[HostAccount] = []
    deadline = time.monotonic() + PATIENCE
    while True:
        accounts += sweep(orchestrator, str(state))
        if not any(map(is_unsettled, host_folders(str(state)))):
            return [*accounts, *read_accounts(str(state))]
        assert time.monotonic() < deadline, accounts
        time.sleep(0.05)


def is_unsettled(folder: Path) -> bool:
    """Whether nobody has settled a host yet."""
    return folder.exists() and not (folder / KEPT).exists()


@contextmanager
def stopped(os_pid: int) -> Iterator[None]:
    """Have a victim stand still, as it is, until it is killed."""
    os.kill(os_pid, signal.SIGSTOP)
    wait_while(lambda: state_of(os_pid) not in {"T", "Z"})
    yield


def state_of(os_pid: int) -> str:
    """The letter that the kernel has for what it does."""
    return Path(f"/proc/{os_pid}/stat").read_text().rpartition(")")[2].split()[0]


def kill_a_sweep(orchestrator: ResourceOrchestrator, state: Path, generator: random.Random) -> None:
    """Sweep in another process, which is killed in the midst of it."""
    sweeper = os.fork()
    if sweeper == 0:
        try:
            sweep(orchestrator, str(state))
        finally:
            os._exit(0)
    time.sleep(generator.uniform(0, 0.4))
    kill_all(sweeper)
    os.waitpid(sweeper, 0)


def kill_each(
    victims: Victims, decoys: Decoys, seeds: list[int], folder: Path, generator: random.Random
) -> None:
    """Have some hosts live at the same time, and kill each when its moment has come."""
    waiting = list(seeds)
    alive: list[tuple[float, int, int]] = []
    while waiting or alive:
        is_full = len(alive) == _ALIVE or not waiting
        if not is_full and not (alive and alive[0][0] <= time.monotonic()):
            seed = waiting.pop(0)
            os_pid = victims.start(seed, has_reaper=generator.randrange(_REAPERS) == 0)
            moment = time.monotonic() + generator.uniform(0, 0.15)
            heapq.heappush(alive, (moment, os_pid, seed))
            continue
        moment, os_pid, seed = heapq.heappop(alive)
        time.sleep(max(0, moment - time.monotonic()))
        with stopped(os_pid):
            decoys.use_some(left_of(seed, folder), generator)
        kill_all(os_pid)
        decoys.succeed_some(left_of(seed, folder), generator)


@final
class Tally:
    """What came of it."""

    def __init__(self) -> None:
        self.killed = Counter[str]()
        self.rows: list[RowAccount] = []
        #: What was not as it was any more, of others'.
        self.wrong: list[str] = []
        #: The names that were there after a sweep, at any time, and those that are so in the end.
        self.seen: set[str] = set()
        self.left: set[str] = set()
        self.begun = time.monotonic()

    @property
    def last(self) -> dict[str, RowAccount]:
        """What was said last of each thing."""
        return {row.row: row for row in self.rows}

    @property
    def kinds(self) -> list[str]:
        """Of which kinds they were."""
        return sorted({row.kind for row in self.rows})

    @property
    def kept(self) -> list[RowAccount]:
        """What is said to be there still."""
        return [row for row in self.last.values() if row.is_kept]

    @property
    def unreported(self) -> set[str]:
        """What is left, and said nowhere."""
        said = [row.description for row in self.kept]
        names = {name: Path(name).name.removeprefix("sem.") for name in self.left}
        return {name for name, end in names.items() if not any(end in each for each in said)}

    def __str__(self) -> str:
        outcomes = Counter(str(row.outcome) for row in self.last.values())
        return (
            f"{self.killed['hosts']} hosts killed and {self.killed['sweeps']} sweeps, "
            f"{time.monotonic() - self.begun:.0f} s; {len(self.last)} things of "
            f"{', '.join(self.kinds)}: {dict(outcomes)}; {len(self.left)} left, "
            f"{len(self.unreported)} of them unreported; {len(self.wrong)} wrongly removed"
        )


@pytest.mark.timeout(600 + 3 * ROUNDS if os.environ.get("PROBATE_CHAOS") else 240)
def test_nothing_is_left_of_hosts_that_are_killed_at_random(
    orchestrator: ResourceOrchestrator, tmp_path: Path, tell: Callable[..., None]
) -> None:
    """Between intent and making, in the midst of a cleanup: all is given back, or is reported.

    Several live at a time. Sweeps are killed, too. Decoys beside them, what takes the names of the
    dead, and what others use, are as they were. Whoever does not come to an end fails it.
    """
    state, folder = tmp_path / "state", tmp_path / "things"
    folder.mkdir()
    seed = random.randrange(10**6) * 10**5
    generator = random.Random(seed)
    tally = Tally()
    end = "not finished"
    try:
        with Victims(state, folder) as victims, Decoys(seed, folder) as decoys:
            for first in told(range(0, ROUNDS, _BATCH), tell):
                seeds = list(range(seed + first + 1, seed + first + 1 + _BATCH))
                kill_each(victims, decoys, seeds, folder, generator)
                tally.killed["hosts"] += len(seeds)
                if generator.randrange(2):
                    kill_a_sweep(orchestrator, state, generator)
                    tally.killed["sweeps"] += 1
                tally.rows += rows_of(settled(orchestrator, state))
                tally.wrong += decoys.faults()
                tally.seen |= {name for each in seeds for name in left_of(each, folder)}
                assert sleepers_of(seeds) == []
            tally.rows += rows_of(settled(orchestrator, state))
            tally.left = set(filter(is_there, tally.seen - decoys.names))
            end = "{} successors, {} uses; 0 hung".format(*decoys.counts)
    finally:
        tell(f"seed {seed}: {tally}; {end}")
        # Of those that nobody looks at any more.
        settled(orchestrator, state)
        for name in filter(is_there, tally.seen):
            remove(name)

    assert tally.unreported == set(), f"of seed {seed}"
    assert tally.wrong == []
    assert quarantines_of(tally.last) == []
    assert len(tally.rows) > ROUNDS
    assert len(tally.kept) <= ROUNDS
    if ROUNDS > _FEW:
        assert tally.kinds == _KINDS


def quarantines_of(rows: Iterable[str]) -> list[Path]:
    """What settlements that were killed have left in shared memory."""
    hosts = {row.partition(":")[0] for row in rows}
    return [each for host in hosts for each in Path("/dev/shm").glob(f"{quarantine_name(host)}*")]


def rows_of(accounts: list[HostAccount]) -> list[RowAccount]:
    """The rows of all that was settled; nothing could not be read."""
    assert {each.state for each in accounts} <= {HostState.SETTLED, HostState.BEING_SETTLED}
    return [row for account in accounts for row in account.rows]
