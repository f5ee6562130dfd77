"""Runs killed at random moments: nothing of theirs is left, and nothing of anybody else's goes."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Self, final

import pytest
from chaos_decoys import Decoys
from chaos_progress import told
from chaos_victims import left_of, prefix_of
from run_busy import busy, stays
from run_fronts import PATIENCE, RunFront, is_alive, wait_for_end, wait_until
from run_things import remove_called

from probate import ResourceOrchestrator
from probate.journal.folders import HEADER, read_json
from probate.journal.loggedstore import read_rows
from probate.settlement import HostState, sweep
from probate.system.osprocess import stat_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_IS_CHAOS = "PROBATE_CHAOS" in os.environ

ROUNDS = int(os.environ.get("N", "1000")) if _IS_CHAOS else 40

#: Rounds until it is looked whether all that is others' is as it was, and they let go of it.
_BATCH = 10

#: How many seeds, one a round, there may be between those of two tests.
_SEEDS = 10**5


@final
class Outside:
    """The same program, of the same user, that nobody has run by us; it stands still."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._names: set[str] = set()
        self._seed, self._folder = seed, folder
        place = folder / str(seed)
        place.mkdir()
        self._process = subprocess.Popen(
            busy(_name(seed), place), stdout=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        self._pids = [int(self._process.stdout.readline()) for _ in range(2)]
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)
        # Until then, it may remove again what it has made.
        wait_until(lambda: all(stat_of(pid)[0] == b"T" for pid in self._pids))
        self._names = left_of(self._seed, self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
        wait_for_end(*self._pids)
        remove_called(prefix_of(self._seed))

    def check(self) -> None:
        """It lives, and all that it has made is there still."""
        assert all(map(is_alive, self._pids))
        assert self._names <= left_of(self._seed, self._folder)


def _name(seed: int) -> str:
    return prefix_of(seed).removesuffix("-")


def kill_some(front: RunFront, generator: random.Random) -> tuple[str, ...]:
    """Kill some of a run, at some moment; return who it was when all others have ended."""
    if generator.random() < 0.8:
        front.line()
    time.sleep(generator.random() / 20)
    known = {
        "command": front.wait_for_command(),
        "front": front.process.pid,
        "keeper": front.keeper,
    }
    victims = generator.sample(sorted(known), generator.randint(1, 3))
    for victim in victims:
        os.kill(known[victim], signal.SIGKILL)
    if victims == ["keeper"]:
        os.kill(front.command, signal.SIGTERM)
    assert select.select([front.pidfd], [], [], PATIENCE)[0], victims
    front.process.wait()
    wait_for_end(*front.all_keepers())
    return tuple(victims)


def known_of(front: RunFront) -> set[str]:
    """The names of what its journal tells of that is known by more than its name."""
    for folder in front.state.glob("host-*"):
        if read_json(folder / HEADER)["pid"] == front.process.pid:
            rows = [json.loads(row) for _, row in read_rows(str(folder))]
            return {row["notice"][2] for row in rows if row.get("state") == "confirmed"}
    return set()


def is_left(orchestrator: ResourceOrchestrator, state: Path, outcomes: Counter[str]) -> bool:
    """Sweep, in which all can be read; tell whether anything is left to be settled of any run."""
    accounts = sweep(orchestrator, str(state))
    assert {each.state for each in accounts} <= {HostState.SETTLED, HostState.BEING_SETTLED}
    outcomes.update(str(row.outcome) for account in accounts for row in account.rows)
    return any(state.glob("host-*"))


@pytest.mark.timeout(3600 if _IS_CHAOS else 240)
def test_random_deaths(place: Path, tell: Callable[..., None]) -> None:
    """Of command, front, keeper, or several: nothing is left, nobody hangs, all decoys are there.

    So is what takes the names of the dead before they are settled, and, for as long as they use it,
    what others have opened. SEED=NUMBER has it choose the same again.
    """
    seed = int(os.environ.get("SEED") or random.randrange(1, 10**6) * _SEEDS)
    print(f"SEED={seed}")  # noqa: T201  shown if it fails
    state = place / "state"
    orchestrator = ResourceOrchestrator().discover()
    killed, outcomes = Counter[str](), Counter[str]()
    begun = time.monotonic()
    batch: list[int] = []
    end = "not finished"
    try:
        with Decoys(seed, place) as decoys, Outside(seed, place) as outside:
            for number in told(range(seed + 1, seed + ROUNDS + 1), tell):
                generator = random.Random(number)
                things = place / str(number)
                things.mkdir()
                has_session = generator.random() < 0.5
                command = busy(_name(number), things, has_session=has_session)
                with RunFront(*command, state=state) as front:
                    if generator.random() < 0.3:
                        front.line()
                        decoys.use_some(set(filter(stays, left_of(number, place))), generator)
                    victims = kill_some(front, generator)
                    killed["+".join(sorted(victims))] += 1
                    if generator.random() < 0.5:
                        names = left_of(number, place) & known_of(front)
                        decoys.succeed_some(set(filter(stays, names)), generator)
                is_left(orchestrator, state, outcomes)
                batch.append(number)
                if len(batch) == _BATCH or number == seed + ROUNDS:
                    outside.check()
                    assert decoys.faults() == []
                    # What was in use is not any more. The last run has had it swept as well.
                    wait_until(lambda: not is_left(orchestrator, state, outcomes))
                    left = {name for each in batch for name in left_of(each, place)}
                    assert left - decoys.names == set(), f"SEED={seed}, {batch}"
                    batch.clear()
            end = "{} successors, {} uses; 0 left, wrongly removed, or hung".format(*decoys.counts)
    finally:
        tell(
            f"SEED={seed}: {killed.total()} runs, {time.monotonic() - begun:.0f} s; "
            f"killed {dict(killed)}; swept {dict(outcomes)}; {end}"
        )
        remove_called(f"{prefix_of()}{seed // _SEEDS}[0-9][0-9][0-9][0-9][0-9]-")
