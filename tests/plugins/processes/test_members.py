"""Members that have shed what marks them: known once they were seen, or named as not to be told."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
from typing import TYPE_CHECKING

import processes_kernel as kernel
import psutil
import pytest
from processes_kernel import SLEEP, pids_in

from probate import death_watch
from probate_processes.marks import UNWORN
from probate_processes.threadmarks import SchedAttr, Worn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate import OsProcess, ProcessManager
    from probate_processes import ProcessTreeManager

    Pin = Callable[[int], OsProcess]

pytestmark = pytest.mark.usefixtures("nothing_remains")

_RLIMIT_LOCKS = 10

#: It starts a child in a session of its own, with nothing in its environment, which writes its pid
#: into $0. When $0.go is there, it ends, and the child is nobody's.
PARENT = """
env -i setsid sh -c 'echo $$ > "$0"; exec sleep 300' "$0" &
while [ ! -e "$0.go" ]; do sleep 0.005; done
"""


def shed(os_pid: int) -> None:
    """Take off what a process was born with, as a program does that is up to it."""
    hard = resource.prlimit(os_pid, _RLIMIT_LOCKS)[1]
    resource.prlimit(os_pid, _RLIMIT_LOCKS, (hard, hard))
    SchedAttr.of(os_pid).set(os_pid, 0)
    psutil.Process(os_pid).ionice(psutil.IOPRIO_CLASS_BE, 4)
    assert Worn.by(os_pid) == UNWORN


@pytest.fixture
def two(
    trees: ProcessTreeManager, manager: ProcessManager, tmp_path: Path, containment: str
) -> tuple[int, object, int]:
    """A tree with such a child, and another tree: owner, leader, child."""
    if containment == "cgroup":
        pytest.skip("whatever it sheds, it stays in its cgroup")
    manager.spawn(SLEEP)
    owner = manager.create_process("owner")
    leader = trees.spawn(owner.pid, ["sh", "-c", f"{PARENT} exec sleep 300", str(tmp_path / "pid")])
    (child,) = pids_in(tmp_path / "pid")
    kernel.eventually(lambda: kernel.stat(child)[3] == str(child), "it has a session")
    if Worn.by(child) == UNWORN:
        pytest.skip("this kernel keeps no marks")
    return owner.pid, leader, child


def test_a_member_is_known_once_it_was_seen(
    manager: ProcessManager,
    trees: ProcessTreeManager,
    two: tuple[int, object, int],
    tmp_path: Path,
    pin: Pin,
) -> None:
    """It may shed everything then, and lose its parent: it ends with its tree."""
    owner, leader, child = two
    assert child in trees.members(owner, leader)
    shed(child)
    (tmp_path / "pid.go").touch()
    orphan = pin(child)
    _kill_parent(leader, child)
    result = manager.terminate_process(owner)

    assert result.is_success
    assert result.notes == ()
    assert kernel.is_gone(orphan)


def test_an_orphan_that_nobody_can_tell_is_named(
    manager: ProcessManager, two: tuple[int, object, int], tmp_path: Path, pin: Pin
) -> None:
    """It has shed all before it was seen, and there are two trees: the account says so.

    It ends with the last of the two, whose it must be then.
    """
    owner, leader, child = two
    shed(child)
    orphan = pin(child)
    with nobody_is_told():
        _kill_parent(leader, child)
        result = manager.terminate_process(owner)

    assert result.is_success
    assert [note for note in result.notes if f"({child})" in note and "1 process came" in note]
    assert kernel.lives(child)

    for process in manager.list_processes():
        manager.terminate_process(process.pid)

    assert kernel.is_gone(orphan)


def test_an_orphan_that_nobody_can_tell_of_a_tree_that_ends_by_itself(
    manager: ProcessManager, containment: str, tmp_path: Path, pin: Pin
) -> None:
    """Nobody has asked for an account, and yet there is one, which names it."""
    if containment == "cgroup":
        pytest.skip("whatever it sheds, it stays in its cgroup")
    manager.spawn(SLEEP)
    script = f"{PARENT.splitlines()[1]} exec sleep 300"
    process = manager.spawn(["sh", "-c", script, str(tmp_path / "pid")])
    (child,) = pids_in(tmp_path / "pid")
    kernel.eventually(lambda: kernel.stat(child)[3] == str(child), "it has a session")
    if Worn.by(child) == UNWORN:
        pytest.skip("this kernel keeps no marks")
    shed(child)
    orphan = pin(child)
    os.kill(process.os_pid or 0, signal.SIGKILL)
    result = manager.wait(process.pid, 15)

    assert result.is_success
    assert [note for note in result.notes if f"({child})" in note and "1 process came" in note]
    assert kernel.lives(child)

    orphan.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def nobody_is_told() -> Iterator[None]:
    """Hold up the death watch: a tree that it finds to be over has no account of its own."""
    is_held, over = threading.Event(), threading.Event()

    def hold() -> None:
        is_held.set()
        over.wait(30)

    death_watch.call_later(0, hold)
    assert is_held.wait(30)
    try:
        yield
    finally:
        over.set()


def _kill_parent(leader: object, child: int) -> None:
    """End the leader alone; its child comes to this host."""
    leader.send_signal(9)  # type: ignore[attr-defined]
    kernel.eventually(lambda: kernel.parent(child) == os.getpid(), "it came to us")
