"""Pids come round: what is meant for a dead process never reaches the next one with its pid."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import processes_kernel as kernel
import psutil
import pytest
from processes_kernel import SLEEP, pids_in
from spawn_sleepers import next_os_pid, sleeper, successor, wait_for_exit

from probate import OsProcess, ResourceLimits
from probate.system import set_tag, start_time_of, tag_of
from probate_processes import birth
from probate_processes.lineage import Lineage
from probate_processes.marks import Mark
from probate_processes.native import native_of
from probate_processes.procfs import Members, close_all
from probate_processes.tree import Tree
from probate_processes.treeregistry import TreeRegistry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import ProcessManager
    from probate_processes import ProcessTreeManager

    Pin = Callable[[int], OsProcess]

pytestmark = pytest.mark.usefixtures("nothing_remains")

#: Waits for a line, and leaves an orphan in a session of its own, which writes its pid into $0.
PARENT = 'read line; (setsid sh -c \'echo $$ > "$0"; exec sleep 300\' "$0" &)'


def parent(pids: Path) -> subprocess.Popen[bytes]:
    command = ["sh", "-c", PARENT, str(pids)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


@pytest.mark.parametrize("own_session", [False, True])
def test_a_popen_that_its_user_has_waited_for(
    manager: ProcessManager, trees: ProcessTreeManager, tmp_path: Path, pin: Pin, own_session: bool
) -> None:
    """Its orphan lives, so it is still owned; the next process with its pid is left alone."""
    owner = manager.create_process("owner")
    popen = parent(tmp_path / "pids")
    owner.adopt(popen)
    popen.communicate()
    orphan = pin(*pids_in(tmp_path / "pids"))
    with successor(popen.pid, own_session=own_session) as other:
        members = trees.members(owner.pid, popen)
        result = owner.terminate(0.1)

        assert members == [orphan.os_pid]
        assert result.is_success
        assert not orphan.is_there()
        assert other.poll() is None


def test_the_next_process_with_the_pid_of_a_dead_leader_can_be_owned(
    manager: ProcessManager, tmp_path: Path, pin: Pin
) -> None:
    """Also while what the dead one has left lives on; each ends with its own owner."""
    first, second = manager.create_process("first"), manager.create_process("second")
    popen = parent(tmp_path / "pids")
    first.adopt(popen)
    popen.communicate()
    orphan = pin(*pids_in(tmp_path / "pids"))
    with successor(popen.pid) as other:
        second.adopt(other)
        first.terminate()

        assert not orphan.is_there()
        assert other.poll() is None

        second.terminate()

        assert other.wait(5) in {-9, -15}


def test_orphans_of_a_session_with_the_pid_of_a_dead_leader(
    manager: ProcessManager, tmp_path: Path, pin: Pin
) -> None:
    """The pid of a session that is over names another session: its orphans are strangers."""
    owner = manager.create_process("owner")
    popen = parent(tmp_path / "pids")
    owner.adopt(popen)
    popen.communicate()
    pids_in(tmp_path / "pids")
    # A stranger's session leader, which leaves an orphan in its session to this host.
    script = '(sh -c \'echo $$ > "$0"; exec sleep 300\' "$0" &)'
    command = ["sh", "-c", script, str(tmp_path / "strangers")]
    with next_os_pid(popen.pid):
        stranger = subprocess.Popen(command, start_new_session=True)
    stranger.wait(10)
    orphan = pin(*pids_in(tmp_path / "strangers"))
    if stranger.pid != popen.pid:
        pytest.skip("somebody else was faster")
    kernel.eventually(lambda: kernel.parent(orphan.os_pid) == os.getpid(), "it came to us")
    owner.terminate()

    assert not orphan.has_exited()


def test_a_psutil_process_whose_parent_has_reaped_it(
    manager: ProcessManager, tmp_path: Path, pin: Pin
) -> None:
    """It ended by itself, and is forgotten: its owner's end does nothing to the next one."""
    owner = manager.create_process("owner")
    script = 'sh -c \'while [ ! -e "$0.go" ]; do sleep 0.01; done\' "$0" & echo $! > "$0"; wait $!'
    with sleeper("sh", "-c", f"{script}; exec sleep 300", str(tmp_path / "pid")):
        (leader,) = pids_in(tmp_path / "pid")
        owner.adopt(psutil.Process(leader))
        pinned = pin(leader)
        (tmp_path / "pid.go").touch()
        kernel.eventually(lambda: not pinned.is_there(), "it was reaped by its parent")
        with successor(leader) as other:
            result = owner.terminate()

            assert result.is_success
            assert other.poll() is None


@pytest.mark.parametrize("how", ["by our ticks", "by ticks that are another's", "held"])
def test_the_start_time_of_a_spawned_process_is_the_kernel_s(
    manager: ProcessManager,
    trees: ProcessTreeManager,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """By it, it is told from the next one with its pid; and it is not asked for at each spawn.

    But where our ticks are not its own, and of a fork that was not over within one.
    """
    asked: list[int] = []

    def start_time(os_pid: int) -> int:
        asked.append(os_pid)
        return start_time_of(os_pid)

    monkeypatch.setattr(birth._ticks, "agree", False)
    monkeypatch.setattr(birth, "start_time_of", start_time)
    if how == "by ticks that are another's":
        monkeypatch.setattr(birth, "ticks_since_boot", lambda: 7)
    process = manager.create_process("owner")
    limits = ResourceLimits(cpu=1000) if how == "held" else None
    were_asked: list[bool] = []
    is_another = how == "by ticks that are another's"
    # On a busy machine many a fork is held up for longer than a tick.
    while len(were_asked) < 10 or (not is_another and all(were_asked) and len(were_asked) < 40):
        asked.clear()
        child = trees.spawn(process.pid, SLEEP, limits=limits)
        tree = trees.table.get(process.pid, trees.table.find(process.pid, child))
        were_asked.append(bool(asked))

        assert tree.leader.start_time == start_time_of(child.os_pid)

        trees.close(process.pid, child)

    if not is_another and all(were_asked):
        pytest.skip("this host was too busy each time")
    assert all(were_asked) == is_another


def test_a_spawned_process_that_ended(manager: ProcessManager, trees: ProcessTreeManager) -> None:
    """Neither a signal sent by its handle nor its owner's end reaches the next one."""
    owner = manager.create_process("owner")
    child = trees.spawn(owner.pid, ["true"])

    assert child.exited.result(10) == 0

    kernel.eventually(lambda: kernel.is_gone(child.os_pid), "it was reaped")
    with successor(child.os_pid) as other:
        assert not child.send_signal(9)

        owner.terminate()

        assert other.poll() is None


def test_a_child_that_was_reaped_behind_all_backs(manager: ProcessManager, tmp_path: Path) -> None:
    """Waited for by its bare pid: what ends the tree waits for no other child in its place."""
    owner = manager.create_process("owner")
    popen = parent(tmp_path / "pids")
    owner.adopt(popen)
    assert popen.stdin
    popen.stdin.close()
    pids_in(tmp_path / "pids")
    os.waitpid(popen.pid, 0)
    try:
        with successor(popen.pid) as other:
            other.kill()
            wait_for_exit(other.pid)
            owner.terminate()

            # Its status was not taken away.
            assert other.wait(5) == -9
    finally:
        # The object could not know.
        popen.returncode = 0


@pytest.mark.parametrize("has_successor", [False, True], ids=["free", "taken"])
def test_one_that_is_reaped_while_it_is_looked_at_is_no_member(
    monkeypatch: pytest.MonkeyPatch, has_successor: bool
) -> None:
    """Nor is the next one with its pid, which is not tagged either, and so never taken for one."""
    mark = Mark.new()
    with contextlib.ExitStack() as stack:
        leader, child = (stack.enter_context(sleeper()) for _ in range(2))
        pinned = stack.enter_context(OsProcess.open(leader.pid))
        native = native_of(leader)
        assert native is not None
        others: list[subprocess.Popen[bytes]] = []

        def look(os_pid: int) -> Lineage | None:
            lineage = of_child(os_pid)
            if os_pid == child.pid:
                child.kill()
                child.wait(10)
                if has_successor:
                    others.append(stack.enter_context(successor(os_pid)))
            return lineage

        of_child = Lineage.of_child
        monkeypatch.setattr(Lineage, "of_child", look)
        set_tag(child.pid, mark.tag)
        trees = TreeRegistry()
        tree = Tree(native, pinned, None, mark, native, trees.remember)
        trees.add(tree)
        members: Members = {}
        tree.scan(members, trees.unclaimed_children)
        found = sorted(members)
        close_all(members)

        assert found == [leader.pid]
        assert [tag_of(each.pid) for each in others] == [tag_of(os.getpid())] * has_successor
