"""A run within a run joins it: one filter, one keeper, and each gives back what is its own."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import run_things
from run_fronts import FRONT, RunFront, is_alive, wait_for_end, wait_until
from run_things import is_there

SUPPORT = str(Path(run_things.__file__).parent)

#: Runs what is given as its last argument within the run, and has made something before.
OUTER = f"""
import os, subprocess, sys, time
sys.path.insert(0, {SUPPORT!r})
import run_things
os.write(1, run_things.shm(sys.argv[1] + "-outer").encode() + b"\\n")
inner = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE, text=True)
for line in inner.stdout:
    os.write(1, line.encode())
os.write(1, b"inner has ended\\n")
time.sleep(1000)
"""

INNER = f"""
import os, sys, time
sys.path.insert(0, {SUPPORT!r})
import run_things
os.write(1, run_things.shm(sys.argv[1] + "-inner").encode() + b"\\n")
if os.fork() == 0:
    os.setsid()
    os.write(1, run_things.messages("").encode() + b"\\n")
    time.sleep(1000)
time.sleep(1000)
"""


def within(name: str, **options: object) -> list[str]:
    """A command that runs a command of its own within the run."""
    inner = [sys.executable, "-c", FRONT, json.dumps(options), sys.executable, "-c", INNER, name]
    return [sys.executable, "-c", OUTER, name, *inner]


def inner_lines(front: RunFront) -> tuple[str, list[str]]:
    """What the outer command has made, and what the inner one."""
    made = [front.line() for _ in range(3)]
    return made[0], made[1:]


def test_the_inner_run_gives_back_what_is_its_own(tmp_path: Path, name: str) -> None:
    """And has an account of it; what the outer one has made stays until that ends."""
    with RunFront(*within(name), state=tmp_path) as front:
        outer, inner = inner_lines(front)
        # The inner front and its command have told who they are in the same words.
        assert len(front.keepers) == 2
        assert front.keepers[0] == front.keepers[1]
        os.kill(front.commands[-1], signal.SIGKILL)
        account = front.inner_account()

        assert not any(map(is_there, inner))
        assert is_there(outer)
        kinds = [each.kind for each in account.settled]
        assert sorted(kinds) == ["ipc", "memory", "processes"]
        assert front.line() == "inner has ended"
        os.kill(front.commands[0], signal.SIGKILL)
        account = front.account()

        assert not is_there(outer)
        assert [each.kind for each in account.settled if each.kind != "processes"] == ["memory"]


def test_what_an_inner_front_that_was_killed_has_left_is_given_back(
    tmp_path: Path, name: str
) -> None:
    with RunFront(*within(name), state=tmp_path) as front:
        outer, inner = inner_lines(front)
        command = front.commands[-1]
        parent = int(Path(f"/proc/{command}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        wait_for_end(command)
        assert front.line() == "inner has ended"
        wait_until(lambda: not any(map(is_there, inner)), "it is left")
        assert is_there(outer)
        os.kill(front.commands[0], signal.SIGKILL)
        front.account()

        assert not is_there(outer)


def test_the_outer_run_ends_those_within_it(tmp_path: Path, name: str) -> None:
    """Whatever they have left by then is given back with what is its own."""
    with RunFront(*within(name), state=tmp_path) as front:
        outer, inner = inner_lines(front)
        os.kill(front.commands[0], signal.SIGKILL)
        account = front.account()

        assert not any(map(is_there, [outer, *inner]))
        assert not is_alive(front.commands[-1])
        assert [each.kind for each in account.settled if each.kind != "processes"] == [
            "ipc",
            "memory",
            "memory",
        ]


def test_both_go_on_when_their_keeper_was_killed(tmp_path: Path, name: str) -> None:
    """The outer front starts another one, which the inner one joins again."""
    with RunFront(*within(name), state=tmp_path) as front:
        outer, inner = inner_lines(front)
        front.wait_for_rows(3)
        os.kill(front.keepers[0], signal.SIGKILL)
        front.wait_for_keepers(4)
        assert front.keepers[2] == front.keepers[3] != front.keepers[0]
        os.kill(front.commands[-1], signal.SIGKILL)
        front.inner_account()

        assert not any(map(is_there, inner))
        assert is_there(outer)
        os.kill(front.commands[0], signal.SIGKILL)
        front.account()

        assert not is_there(outer)
