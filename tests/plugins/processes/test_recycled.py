"""Pids come round: what is meant for a dead process never reaches the next one with its pid."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import processes_kernel as kernel
import psutil
import pytest
from processes_kernel import SLEEP, pids_in

from probate import OsProcess
from probate_processes.native import native_of
from probate_processes.procfs import Lineage, Mark, Members, close_all, set_tag, tag_of
from probate_processes.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ProcessManager
    from probate_processes import ProcessTreeManager

    Pin = Callable[[int], OsProcess]

pytestmark = pytest.mark.usefixtures("nothing_remains")

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def start_with_pid(os_pid: int, *, own_session: bool = False) -> subprocess.Popen[bytes]:
    """Start a sleep that has this very pid; skip where the kernel does not let us choose."""
    for _ in range(200):
        try:
            LAST_PID.write_text(str(os_pid - 1))
        except OSError as error:
            pytest.skip(f"no pid can be asked for here: {error}")
        started = subprocess.Popen(SLEEP, start_new_session=own_session)
        if started.pid == os_pid:
            return started
        # Somebody else was faster.
        started.kill()
        started.wait()
        if Path(f"/proc/{os_pid}").exists():
            pytest.skip(f"pid {os_pid} was taken by somebody else")
    pytest.skip(f"pid {os_pid} could not be had")


def end(popen: subprocess.Popen[bytes]) -> None:
    popen.kill()
    popen.wait()


@pytest.mark.parametrize("own_session", [False, True])
def test_a_popen_that_its_user_has_waited_for(
    manager: ProcessManager,
    trees: ProcessTreeManager,
    tmp_path: Path,
    pin: Pin,
    own_session: bool,
) -> None:
    """Its orphan lives, so it is still owned; the next process with its pid is left alone."""
    owner = manager.create_process("owner")
    script = 'read line; (setsid sh -c \'echo $$ > "$0"; exec sleep 300\' "$0" &)'
    command = ["sh", "-c", script, str(tmp_path / "pids")]
    popen = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    owner.adopt(popen)
    popen.communicate()
    orphan = pin(*pids_in(tmp_path / "pids"))
    successor = start_with_pid(popen.pid, own_session=own_session)
    members = trees.members(owner.pid, popen)
    result = owner.terminate(0.1)

    assert members == [orphan.os_pid]
    assert result.is_success
    assert not orphan.is_there()
    assert kernel.state(successor.pid) == "S"
    assert successor.poll() is None

    end(successor)


def test_the_next_process_with_the_pid_of_a_dead_leader_can_be_owned(
    manager: ProcessManager, tmp_path: Path, pin: Pin
) -> None:
    """Also while what the dead one has left lives on; each ends with its own owner."""
    first, second = manager.create_process("first"), manager.create_process("second")
    script = 'read line; (setsid sh -c \'echo $$ > "$0"; exec sleep 300\' "$0" &)'
    command = ["sh", "-c", script, str(tmp_path / "pids")]
    popen = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    first.adopt(popen)
    popen.communicate()
    orphan = pin(*pids_in(tmp_path / "pids"))
    successor = start_with_pid(popen.pid)
    second.adopt(successor)
    first.terminate()

    assert not orphan.is_there()
    assert successor.poll() is None

    second.terminate()

    assert successor.wait(5) in {-9, -15}


def test_orphans_of_a_session_with_the_pid_of_a_dead_leader(
    manager: ProcessManager, tmp_path: Path, pin: Pin
) -> None:
    """The pid of a session that is over names another session: its orphans are strangers."""
    owner = manager.create_process("owner")
    script = 'read line; (setsid sh -c \'echo $$ > "$0"; exec sleep 300\' "$0" &)'
    command = ["sh", "-c", script, str(tmp_path / "pids")]
    popen = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    owner.adopt(popen)
    popen.communicate()
    pids_in(tmp_path / "pids")
    try:
        LAST_PID.write_text(str(popen.pid - 1))
    except OSError as error:
        pytest.skip(f"no pid can be asked for here: {error}")
    # A stranger's session leader, which leaves an orphan in its session to this host.
    script = '(sh -c \'echo $$ > "$0"; exec sleep 300\' "$0" &)'
    command = ["sh", "-c", script, str(tmp_path / "unclaimed_children")]
    stranger = subprocess.Popen(command, start_new_session=True)
    stranger.wait(10)
    orphan = pin(*pids_in(tmp_path / "unclaimed_children"))
    if stranger.pid != popen.pid:
        owner.terminate()
        pytest.skip("somebody else was faster")
    kernel.eventually(lambda: kernel.parent(orphan.os_pid) == os.getpid(), "it came to us")
    owner.terminate()

    assert kernel.lives(orphan.os_pid)


def test_a_psutil_process_whose_parent_has_reaped_it(
    manager: ProcessManager, tmp_path: Path, pin: Pin
) -> None:
    """It ended by itself, and is forgotten: its owner's end does nothing to the next one."""
    owner = manager.create_process("owner")
    script = 'sh -c \'while [ ! -e "$0.go" ]; do sleep 0.01; done\' "$0" & echo $! > "$0"; wait $!'
    stranger = subprocess.Popen(["sh", "-c", f"{script}; exec sleep 300", str(tmp_path / "pid")])
    (leader,) = pids_in(tmp_path / "pid")
    owner.adopt(psutil.Process(leader))
    pinned = pin(leader)
    (tmp_path / "pid.go").touch()
    kernel.eventually(lambda: not pinned.is_there(), "it was reaped by its parent")
    successor = start_with_pid(leader)
    result = owner.terminate()

    assert result.is_success
    assert successor.poll() is None

    end(successor)
    end(stranger)


def test_a_spawned_process_that_ended(manager: ProcessManager, trees: ProcessTreeManager) -> None:
    """Neither a signal sent by its handle nor its owner's end reaches the next one."""
    owner = manager.create_process("owner")
    child = trees.spawn(owner.pid, ["true"])

    assert child.exited.result(10) == 0

    kernel.eventually(lambda: kernel.is_gone(child.os_pid), "it was reaped")
    successor = start_with_pid(child.os_pid)

    assert not child.send_signal(9)

    owner.terminate()

    assert successor.poll() is None

    end(successor)


def test_a_child_that_was_reaped_behind_all_backs(manager: ProcessManager, tmp_path: Path) -> None:
    """Waited for by its bare pid: what ends the tree waits for no other child in its place."""
    owner = manager.create_process("owner")
    script = 'read line; (setsid sh -c \'echo $$ > "$0"; exec sleep 300\' "$0" &)'
    command = ["sh", "-c", script, str(tmp_path / "pids")]
    popen = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    owner.adopt(popen)
    assert popen.stdin
    popen.stdin.close()
    pids_in(tmp_path / "pids")
    os.waitpid(popen.pid, 0)
    successor = start_with_pid(popen.pid)
    end_of_successor = psutil.Process(successor.pid)
    successor.kill()
    kernel.eventually(lambda: end_of_successor.status() == "zombie", "it is a zombie")
    owner.terminate()

    # Its status was not taken away.
    assert successor.wait(5) == -9
    # The object could not know.
    popen.returncode = 0


@pytest.mark.parametrize("has_successor", [False, True], ids=["free", "taken"])
def test_one_that_is_reaped_while_it_is_looked_at_is_no_member(
    monkeypatch: pytest.MonkeyPatch, has_successor: bool
) -> None:
    """Nor is the next one with its pid, which is not tagged either, and so never taken for one."""
    leader, child = subprocess.Popen(SLEEP), subprocess.Popen(SLEEP)
    native, mark = native_of(leader), Mark.new()
    assert native is not None
    successors: list[subprocess.Popen[bytes]] = []

    def look(os_pid: int) -> Lineage | None:
        lineage = of_child(os_pid)
        end(child)
        if has_successor:
            successors.append(start_with_pid(os_pid))
        return lineage

    of_child = Lineage.of_child
    monkeypatch.setattr(Lineage, "of_child", look)
    set_tag(child.pid, mark.tag)
    try:
        with OsProcess.open(leader.pid) as pinned:
            members: Members = {}
            tree = Tree(native, pinned, None, mark)
            tree.scan(members, lambda: [child.pid])
            found = sorted(members)
            close_all(members)

        assert found == [leader.pid]
        assert [tag_of(each.pid) for each in successors] == [tag_of(os.getpid())] * has_successor
    finally:
        for each in (leader, *successors):
            end(each)
