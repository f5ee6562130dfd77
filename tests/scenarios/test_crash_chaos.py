"""Hosts killed at random moments, with and without their reapers: nothing is left unsaid."""

from __future__ import annotations

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
from chaos_victims import left_of, seconds_of
from journal_hosts import PATIENCE, kill_all, wait_while

from probate import ResourceOrchestrator
from probate.journal.folders import KEPT, host_folders
from probate.journal.quarantine import quarantine_name
from probate.settlement import HostState, read_accounts, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from probate.settlement import HostAccount, RowAccount

ROUNDS = int(os.environ.get("N", "1000")) if os.environ.get("PROBATE_CHAOS") else 50

#: How many are killed until a sweep; and of how many one has a reaper.
_BATCH = 10
_REAPERS = 5


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


def settled(state: Path) -> list[HostAccount]:
    """Sweep until nobody's estate is left to be settled; return what was found.

    Reapers, and what new hosts start, settle at the same time.
    """
    orchestrator = ResourceOrchestrator().discover()
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


def kill_a_sweep(state: Path, generator: random.Random) -> None:
    """Sweep in another process, which is killed in the midst of it."""
    sweeper = os.fork()
    if sweeper == 0:
        try:
            sweep(ResourceOrchestrator().discover(), str(state))
        finally:
            os._exit(0)
    time.sleep(generator.uniform(0, 0.4))
    kill_all(sweeper)
    os.waitpid(sweeper, 0)


@pytest.mark.timeout(3600 if os.environ.get("PROBATE_CHAOS") else 240)
def test_nothing_is_left_of_hosts_that_are_killed_at_random(
    tmp_path: Path, tell: Callable[..., None]
) -> None:
    """Between intent and making, in the midst of a cleanup: all is given back, or is reported.

    Sweeps are killed, too. Decoys beside them, what takes the names of the dead, and what others
    use, are as they were.
    """
    state, folder = tmp_path / "state", tmp_path / "things"
    folder.mkdir()
    seed = random.randrange(10**6) * 10**5
    generator = random.Random(seed)
    rows: list[RowAccount] = []
    left: set[str] = set()
    kills = Counter[str]()
    try:
        with Victims(state, folder) as victims, Decoys(seed, folder) as decoys:
            for first in range(0, ROUNDS, _BATCH):
                seeds = list(range(seed + first + 1, seed + first + 1 + _BATCH))
                for each in seeds:
                    has_reaper = generator.randrange(_REAPERS) == 0
                    os_pid = victims.start(each, has_reaper=has_reaper)
                    time.sleep(generator.uniform(0, 0.15))
                    with stopped(os_pid):
                        decoys.use_some(left_of(each, folder), generator)
                    kill_all(os_pid)
                    kills["hosts"] += 1
                    decoys.succeed_some(left_of(each, folder), generator)
                if generator.randrange(2):
                    kill_a_sweep(state, generator)
                    kills["sweeps"] += 1
                rows += rows_of(settled(state))
                decoys.check()
                left |= {name for each in seeds for name in left_of(each, folder)}
                assert sleepers_of(seeds) == []
            rows += rows_of(settled(state))
            left = set(filter(os.path.lexists, left - decoys.names))
            succeeded, used = decoys.counts
        last = {row.row: row for row in rows}
        kept = [row for row in last.values() if row.is_kept]
        told = {
            name
            for name in left
            if any(Path(name).name.removeprefix("sem.") in row.description for row in kept)
        }
        outcomes = Counter(str(row.outcome) for row in last.values())
        tell(
            f"seed {seed}: killed {dict(kills)}; {dict(outcomes)}; {len(left)} left and reported; "
            f"{succeeded} names with successors, {used} things in use"
        )

        assert left == told, f"unreported, of seed {seed}"
        assert quarantines_of(last) == []
        assert len(rows) > ROUNDS
        assert len(kept) <= ROUNDS
    finally:
        for name in left:
            if name.startswith("/dev/"):
                Path(name).unlink(missing_ok=True)


def quarantines_of(rows: Iterable[str]) -> list[Path]:
    """What settlements that were killed have left in shared memory."""
    hosts = {row.partition(":")[0] for row in rows}
    return [each for host in hosts for each in Path("/dev/shm").glob(f"{quarantine_name(host)}*")]


def rows_of(accounts: list[HostAccount]) -> list[RowAccount]:
    """The rows of all that was settled; nothing could not be read."""
    assert {each.state for each in accounts} <= {HostState.SETTLED, HostState.BEING_SETTLED}
    return [row for account in accounts for row in account.rows]
