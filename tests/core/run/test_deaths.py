"""Whoever dies while a program makes things by name - keeper, front, both, all - none is left."""

from __future__ import annotations

import os
import random
import secrets
import select
import signal
import sys
import time
from pathlib import Path

import pytest
from run_fronts import RunFront, is_alive, wait_for_end, wait_until
from run_things import remove_called

from probate import ResourceOrchestrator
from probate.settlement import HostState, sweep

#: How often all is killed at random.
ROUNDS = int(os.environ.get("N", "1000")) if os.environ.get("PROBATE_CHAOS") else 50

#: Makes things of all sorts without a pause, and gives back every other one; says when it begins.
BUSY = """
import ctypes, itertools, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.sem_open.restype = ctypes.c_void_p
name, place = sys.argv[1:]
small = (ctypes.c_long * 8)(0, 1, 8)
if len(sys.argv[1]) % 2:
    os.fork()
else:
    os.fork() or os.setsid()

def made(result):
    if result is None or result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

for number in itertools.count():
    each = f"{name}-{os.getpid()}-{number}"
    os.close(os.open(f"/dev/shm/{each}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    made(libc.sem_open(f"/{each}".encode(), os.O_CREAT, 0o600, 1))
    os.close(made(libc.mq_open(f"/{each}".encode(), os.O_CREAT | os.O_RDWR, 0o600, small)))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place}/{each}")
    os.mkfifo(f"{place}/{each}-fifo")
    os.close(os.open(f"/tmp/{each}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    if number % 2:
        os.unlink(f"/dev/shm/{each}")
        libc.sem_unlink(f"/{each}".encode())
        os.unlink(f"{place}/{each}")
    libc.mq_unlink(f"/{each}".encode())
    if number == 3:
        os.write(1, b"%d\\n" % os.getpid())
    if number > 30:
        break
os.read(0, 1)
import time; time.sleep(1000)
"""


def left_of(name: str, place: Path) -> list[str]:
    """What is there still by that name."""
    folders = [Path("/dev/shm"), Path("/tmp"), place]
    return [str(path) for folder in folders for path in folder.glob(f"*{name}*")]


def busy(name: str, place: Path) -> list[str]:
    return [sys.executable, "-c", BUSY, name, str(place)]


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
    """With the processes, of which one has left session and parents."""
    state = tmp_path / "state"
    with RunFront(*busy(name, place), state=state) as front:
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


@pytest.mark.timeout(3600 if os.environ.get("PROBATE_CHAOS") else 240)
def test_random_deaths(tmp_path: Path, place: Path, tell: object) -> None:
    """At any moment, of any of them: after it, and a sweep, nothing is left, and nobody hangs."""
    state = tmp_path / "state"
    orchestrator = ResourceOrchestrator().discover()
    for number in range(ROUNDS):
        name = f"probate-test-{secrets.token_hex(8)}{'x' * (number % 2)}"
        with RunFront(*busy(name, place), state=state) as front:
            if random.random() < 0.8:
                front.line()
            time.sleep(random.random() / 20)
            known = {"front": front.process.pid, "keeper": front.keeper}
            known["command"] = front.wait_for_command()
            victims = random.sample(sorted(known), random.randint(1, 3))
            for victim in victims:
                os.kill(known[victim], signal.SIGKILL)
            if victims == ["keeper"]:
                os.kill(front.wait_for_command(), signal.SIGTERM)
            assert select.select([front.pidfd], [], [], 30)[0], victims
            front.process.wait()
            wait_for_end(*front.all_keepers())
        accounts = sweep(orchestrator, str(state))
        left = left_of(name, place)
        remove_called(name)
        assert left == [], (number, victims, accounts)
        assert not list(state.glob("host-*")), (number, victims, accounts)
