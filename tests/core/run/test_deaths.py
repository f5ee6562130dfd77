"""Whoever dies while a program makes things by name - keeper, front, both, all - none is left."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from run_busy import busy
from run_fronts import RunFront, is_alive, wait_for_end, wait_until

from probate import ResourceOrchestrator
from probate.settlement import HostState, sweep


def left_of(name: str, place: Path) -> list[str]:
    """What is there still by that name."""
    folders = [Path("/dev/shm"), Path("/tmp"), place]
    return [str(path) for folder in folders for path in folder.glob(f"*{name}*")]


def test_a_new_keeper_goes_on_where_the_dead_one_was(
    tmp_path: Path, place: Path, name: str
) -> None:
    """Whatever the program was about to make: its calls wait, and none fails."""
    with RunFront(*busy(name, place), state=tmp_path / "state") as front:
        front.line()
        for count in range(5):
            os.kill(front.keeper, signal.SIGKILL)
            front.wait_for_keepers(count + 2)
            time.sleep(random.random() / 50)
        os.kill(front.command, signal.SIGKILL)
        account = front.account()

        assert left_of(name, place) == []
        assert [each for each in account.settled if each.outcome != "released"] == []
        assert {*account.notes} == {"the keeper was killed; another one has taken over"}
        assert not list((tmp_path / "state").glob("host-*"))


def test_what_front_and_keeper_left_is_given_back_by_a_sweep(
    tmp_path: Path, place: Path, name: str
) -> None:
    """With the processes, of which one has left the session."""
    state = tmp_path / "state"
    with RunFront(*busy(name, place, has_session=True), state=state) as front:
        members = [int(front.line()), int(front.line())]
        front.wait_for_rows(20)
        for each in (front.process.pid, front.keeper):
            os.kill(each, signal.SIGSTOP)
        for each in (front.keeper, front.process.pid):
            os.kill(each, signal.SIGKILL)
        front.process.wait()
        wait_for_end(front.keeper)
        assert left_of(name, place)
        (host,) = sweep(ResourceOrchestrator().discover(), str(state))

        assert host.state is HostState.SETTLED
        assert [row.text for row in host.rows if row.is_kept] == []
        assert left_of(name, place) == []
        assert not any(is_alive(member) for member in members)


def test_the_next_run_gives_back_what_all_have_left(tmp_path: Path, place: Path, name: str) -> None:
    """Front, keeper and tree were killed in one stroke; nobody calls for a sweep."""
    state = tmp_path / "state"
    with RunFront(*busy(name, place), state=state) as front:
        members = [int(front.line()), int(front.line())]
        front.wait_for_rows(20)
        everyone = [front.process.pid, front.keeper, *members]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for each in everyone:
                os.kill(each, number)
        front.process.wait()
        wait_for_end(*everyone)
    assert left_of(name, place)
    with RunFront("sleep", "1000", state=state) as after:
        wait_until(lambda: left_of(name, place) == [], "it is left")
        os.kill(after.wait_for_command(), signal.SIGKILL)
        after.account()
