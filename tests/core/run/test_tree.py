"""The OS processes of a run are looked for among all: as often as it takes, and no more."""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING, Final

import pytest
from runs import ISOLATED, PROBATE, RUN, run

from probate.run.facts import RunFacts
from probate.run.options import RunOptions
from probate.run.tree import RunTree

if TYPE_CHECKING:
    from pathlib import Path

#: Leaves a child of which each descendant lives for a moment; the last one holds the pipe open.
HOPS: Final = """
import os, sys, time
os.set_inheritable(int(sys.argv[2]), True)
if os.fork():
    time.sleep(float(sys.argv[1]))
    os._exit(0)
for _ in range(1000):
    if os.fork():
        os._exit(0)
os.execve("/bin/sleep", ["sleep", "300"], {})
"""


def test_nobody_is_looked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks must find nobody; what asks those to stop who are found looks for no more."""
    tree = RunFacts.of_this_process(RunOptions(("command",))).tree()
    looks = []
    scan = RunTree.scan

    def counted(tree: RunTree) -> bool:
        looks.append(tree)
        return scan(tree)

    monkeypatch.setattr(RunTree, "scan", counted)
    ended = tree.end(grace=5)
    tree.close()

    assert (ended, len(looks)) == ([], 2)


def few_descriptors() -> None:
    """As in a container that is given few of them, for good."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def test_the_dead_do_not_take_all_descriptors(tmp_path: Path) -> None:
    """Each process that made something kept one of the keeper's, and nothing was given back."""
    script = "for i in $(seq 100); do rm $(mktemp); done; mkfifo left; kill -9 $$"

    ran = run(RUN, "sh", "-c", script, cwd=tmp_path, preexec_fn=few_descriptors)

    assert ran.stderr == f"probate: gave back FIFO {tmp_path}/left\n".encode()


def test_more_processes_than_descriptors_are_ended(tmp_path: Path) -> None:
    """All lived on. What is made when no descriptor is free is not given back, and that is said."""
    script = "for i in $(seq 100); do (mkfifo $i; exec sleep 300) & done; exit 3"

    # It ends when nobody holds the pipe any more.
    ran = run(RUN, "sh", "-c", script, cwd=tmp_path, preexec_fn=few_descriptors)

    assert ran.returncode == 3
    assert b"settling has failed" not in ran.stderr
    assert not any(tmp_path.iterdir()) or b"raise `ulimit -n`" in ran.stderr


@pytest.mark.parametrize(
    "prefix",
    [RUN, (str(PROBATE), "run", "--observe", "none", "--"), ISOLATED],
    ids=["run", "unobserved", "isolated"],
)
def test_a_daemon_that_changes_its_pid_all_the_time_is_ended(prefix: tuple[str, ...]) -> None:
    """Who is listed is gone by the next moment, and has left a child: it is not taken for gone."""
    for number in range(5):
        alive, held = os.pipe()
        with open(alive, "rb") as pipe:
            command = (sys.executable, "-SEc", HOPS, str(number / 100), str(held))
            ran = run(prefix, *command, pass_fds=[held], capture_output=False)
            os.close(held)
            os.set_blocking(alive, False)

            assert ran.returncode == 0
            assert pipe.read() == b""
