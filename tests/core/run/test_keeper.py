"""Whoever dies - the command, the front, the keeper, or several - no process of the run is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import run_surroundings
from run_fronts import RunFront, is_alive, wait_for_end, wait_until

#: Starts a child, a daemon in a session of its own, and one that is stopped; says who they are.
TREE = """
import os, signal, sys, time
DAEMON = "import os, time; os.write(%d, b'%%d ' %% os.getpid()); time.sleep(1000)"
signal.signal(signal.SIGHUP, signal.SIG_IGN)
reading, writing = os.pipe()
os.set_inheritable(writing, True)

def sleep():
    os.write(writing, b"%d " % os.getpid())
    while True:
        time.sleep(1000)

if os.fork() == 0:
    sleep()
if os.fork() == 0:
    os.write(writing, b"%d " % os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)
    sleep()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        os.execv(sys.executable, [sys.executable, "-c", DAEMON % writing])
    os._exit(0)
said = b""
while said.count(b" ") < 3:
    said += os.read(reading, 100)
print(os.getpid(), said.decode(), flush=True)
"""

THEN_WAITS = TREE + "time.sleep(1000)"
THEN_EXITS = TREE + "os.close(1); sys.stdin.close(); sys.exit(3)"


def tree_of(front: RunFront) -> list[int]:
    members = [int(word) for word in front.line().split()]
    assert len(members) == 4
    assert all(is_alive(member) for member in members)
    return members


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_all_go_with_a_command_that_is_killed(tmp_path: Path, number: int) -> None:
    """Also one that is stopped, and a daemon that has left session and environment."""
    with RunFront("python3", "-c", THEN_WAITS, state=tmp_path) as front:
        main, *others = tree_of(front)
        os.kill(main, number)
        account = front.account()

        assert not any(is_alive(member) for member in others)
        assert {each.os_pid for each in account.settled if each.kind == "processes"} == {*others}
        assert {each.outcome for each in account.settled} == {"released"}
        assert account.notes == ()


def test_those_who_are_left_after_an_exit_are_asked_to_stop(tmp_path: Path) -> None:
    """And have time to: one takes it, the others go at once."""
    source = (
        "import os, signal, sys, time\n"
        "said = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
        "def stop(*_):\n    time.sleep(0.3); os.write(said, b'stopped'); os._exit(0)\n"
        "reading, writing = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    signal.signal(signal.SIGTERM, stop); os.write(writing, b'.'); time.sleep(1000)\n"
        "os.read(reading, 1)\n"
    )
    said = tmp_path / "said"
    with RunFront("python3", "-c", source, str(said), state=tmp_path) as front:
        account = front.account()

        assert said.read_text() == "stopped"
        assert [each.outcome for each in account.settled] == ["released"]


def test_who_does_not_stop_is_killed_when_the_grace_is_over(tmp_path: Path) -> None:
    source = "trap '' TERM; sleep 1000 & exit 3"
    with RunFront("sh", "-c", source, state=tmp_path, grace=0.2) as front:
        account = front.account()

        assert account.settled
        assert not any(is_alive(each.os_pid or 0) for each in account.settled)


def test_a_command_that_leaves_nothing_has_an_empty_account(tmp_path: Path) -> None:
    with RunFront("true", state=tmp_path) as front:
        assert front.account().is_empty


def test_all_go_with_a_front_that_is_killed(tmp_path: Path) -> None:
    """The command with them, though nobody has touched it."""
    with RunFront("python3", "-c", THEN_WAITS, state=tmp_path) as front:
        members = tree_of(front)
        front.kill()
        wait_for_end(*members, front.keeper)


def test_a_keeper_that_is_killed_is_replaced(tmp_path: Path) -> None:
    """And the new one does what the old one would have."""
    with RunFront("python3", "-c", THEN_WAITS, state=tmp_path) as front:
        main, *others = tree_of(front)
        os.kill(front.keeper, signal.SIGKILL)
        wait_for_end(front.keeper)
        front.wait_for_keepers(2)
        os.kill(main, signal.SIGKILL)
        account = front.account()

        assert not any(is_alive(member) for member in others)
        assert account.notes == ("the keeper was killed; another one has taken over",)


def test_the_keeper_is_not_of_the_tree(tmp_path: Path) -> None:
    """Who kills the front and all that descends from it leaves the keeper, which ends the rest."""
    with RunFront("python3", "-c", THEN_WAITS, state=tmp_path) as front:
        members = tree_of(front)
        stat = Path(f"/proc/{front.keeper}/stat").read_text().rpartition(")")[2].split()
        assert int(stat[1]) not in {front.process.pid, *members}
        assert int(stat[3]) not in {os.getsid(0), os.getsid(front.process.pid)}
        for each in (members[0], front.process.pid):
            os.kill(each, signal.SIGKILL)
        front.process.wait()
        wait_for_end(*members, front.keeper)


@pytest.mark.parametrize("surroundings", [[], ["under_a_filter"]])
def test_a_stranger_with_the_environment_of_the_run_is_left(
    tmp_path: Path, surroundings: list[str]
) -> None:
    """As one that a service has started with it, which has no tag, and not our filter."""
    by = [sys.executable, run_surroundings.__file__, *surroundings] if surroundings else []
    support = str(Path(run_surroundings.__file__).parent)
    environment = {"PYTHONPATH": support}
    with RunFront(
        "python3", "-c", THEN_WAITS, state=tmp_path, by=by, environment=environment
    ) as front:
        main, *_ = tree_of(front)
        ours = Path(f"/proc/{main}/environ").read_bytes().split(b"\0")
        (nonce,) = [each for each in ours if each.startswith(b"PROBATE_RUN=")]
        environment = {**os.environ, **environment, "PROBATE_RUN": nonce.decode()[12:]}
        with subprocess.Popen([*by, "sleep", "1000"], env=environment) as stranger:
            try:
                comm = Path(f"/proc/{stranger.pid}/comm")
                wait_until(lambda: comm.read_text() == "sleep\n")
                os.kill(main, signal.SIGKILL)
                account = front.account()

                assert is_alive(stranger.pid)
                assert [str(stranger.pid) in note for note in account.notes] == [True]
            finally:
                stranger.kill()
