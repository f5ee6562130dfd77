"""Leaders that die alone are settled by one look at the host's children, which misses nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import processes_kernel as kernel
import pytest
from processes_kernel import pids_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import OsProcess, Process, ProcessManager
    from probate_processes import ProcessTreeManager

    Pin = Callable[[int], OsProcess]

pytestmark = pytest.mark.usefixtures("nothing_remains")

#: In time, leaves one in a session of its own, nobody's child, with nothing in its environment.
PARENT = """read line; (env -i setsid sh -c 'echo $$ >> "$0"; exec sleep 300' "$1" &) ;
exec sleep 300"""


def spawn_parent(manager: ProcessManager, pids: Path, script: str = PARENT) -> Process:
    """One that leaves an orphan, when all that is to be done at a spawn has been done."""
    process = manager.spawn(["sh", "-c", script, "sh", str(pids)], stdin=subprocess.PIPE)
    assert process.stdin
    assert process.os_pid
    kernel.await_containment(process.os_pid)
    process.stdin.write(b"now\n")
    process.stdin.flush()
    return process


def kill(os_pid: int | None) -> None:
    assert os_pid is not None
    os.kill(os_pid, signal.SIGKILL)


def test_of_many_that_die_at_once_each_orphan_is_found(
    manager: ProcessManager, tmp_path: Path, pin: Pin
) -> None:
    """One look serves all of a round: those with orphans are told from those without."""
    lonely = [manager.spawn(["sleep", "300"]) for _ in range(20)]
    parents, orphans = [], []
    for number in range(5):
        pids = tmp_path / f"pids{number}"
        parents.append(spawn_parent(manager, pids))
        orphans.append(pin(*pids_in(pids)))
    spared = manager.spawn(["sleep", "300"])
    for each in [*lonely[:10], *parents, *lonely[10:]]:
        kill(each.os_pid)
    for each in [*lonely, *parents]:
        assert manager.wait(each.pid, 15).is_success

    assert [each.returncode for each in [*lonely, *parents]] == [-9] * 25
    assert kernel.none_of(orphans)
    assert kernel.lives(spared.os_pid or 0)


def test_orphans_are_found_while_the_host_reaps_its_own_children(
    manager: ProcessManager, tmp_path: Path, pin: Pin
) -> None:
    """Of children that are reaped while they are listed, the kernel may skip the next (proc(5))."""
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            subprocess.run(["true"], check=True)

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            pids = tmp_path / f"pids{number}"
            process = spawn_parent(manager, pids)
            orphan = pin(*pids_in(pids))
            kill(process.os_pid)
            manager.wait(process.pid, 15)

            assert kernel.is_gone(orphan)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_the_hosts_own_children_are_left_alone(manager: ProcessManager) -> None:
    """Alive or dead, older or younger than a worker: who reads their status still finds it."""
    workers = []
    own: list[subprocess.Popen[bytes]] = []
    for _ in range(5):
        own.append(subprocess.Popen(["sleep", "300"]))
        workers.append(manager.spawn(["sleep", "300"]))
        own.append(subprocess.Popen(["sh", "-c", "exit 7"]))
    for worker in workers:
        kill(worker.os_pid)
        manager.wait(worker.pid, 15)

    assert [popen.poll() for popen in own[::2]] == [None] * 5
    assert [popen.wait(15) for popen in own[1::2]] == [7] * 5
    for popen in own[::2]:
        popen.kill()
        popen.wait()


def test_an_orphan_that_left_the_cgroup_ends_with_its_leader(
    manager: ProcessManager, tmp_path: Path, pin: Pin, containment: str
) -> None:
    """Nobody is in the cgroup any more, and yet there is somebody: it was let out by itself."""
    if containment != "cgroup":
        pytest.skip("there is no cgroup to leave")
    host = next(line for line in Path("/proc/self/cgroup").read_text().split() if "0::" in line)
    process = manager.spawn(["sleep", "300"])
    kernel.await_containment(process.os_pid or 0)
    (ours,) = kernel.cgroups()
    outside = Path(ours).parent / "cgroup.procs"
    process.terminate()
    leave = f'echo $$ > {outside}; echo $$ >> "$0"; exec sleep 300'
    script = f"read line; (env -i setsid sh -c '{leave}' \"$1\" &) ; exec sleep 300"
    pids = tmp_path / "pids"
    process = spawn_parent(manager, pids, script)
    orphan = pin(*pids_in(pids))

    assert host in Path(f"/proc/{orphan.os_pid}/cgroup").read_text().split()

    kill(process.os_pid)
    manager.wait(process.pid, 15)

    assert kernel.is_gone(orphan)


def test_one_that_is_no_trees_leader_any_more_is_a_stranger_again(
    trees: ProcessTreeManager, manager: ProcessManager
) -> None:
    """Adopted and disowned by its own end, its pid is no leader's; others are settled as ever."""
    popen = subprocess.Popen(["sleep", "300"])
    owner = manager.create_process("owner")
    owner.adopt(popen)
    worker = manager.spawn(["sleep", "300"])
    kill(popen.pid)
    kernel.eventually(lambda: owner.pid not in trees.table, "it dropped out")
    again = subprocess.Popen(["sleep", "300"])
    kill(worker.os_pid)
    manager.wait(worker.pid, 15)

    assert popen.returncode == -9
    assert again.poll() is None
    again.kill()
    again.wait()
