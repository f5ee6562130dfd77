"""Hosts within hosts, and descendants whom this host may not signal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import processes_kernel as kernel
import pytest
from processes_kernel import SLEEP, pids_in

from probate_processes.threadmarks import Worn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import OsProcess, ProcessManager
    from probate_processes import ProcessTreeManager

    Pin = Callable[[int], OsProcess]

pytestmark = pytest.mark.usefixtures("nothing_remains")

#: A host with a worker, its daemon, and a daemon without environment; they write their pids.
INNER_HOST = """
import pathlib, signal, sys
import probate_processes.cgroup as cgroups
from probate import ProcessManager
path = pathlib.Path(sys.argv[1])
if sys.argv[2] == "no cgroup":
    cgroups.Cgroup.create = classmethod(lambda *_: None)
daemon = "(setsid sh -c 'echo $$ >> \\"$0\\"; exec sleep 300' \\"$0\\" &) ;"
bare = daemon.replace("(", "(env -i ", 1)
with ProcessManager.builder().with_grace(0).build() as manager:
    script = f"sleep 0.1; {daemon} {bare} echo $$ >> \\"$0\\"; exec sleep 300"
    worker = manager.spawn(["sh", "-c", script, str(path)])
    signal.pause()
"""


@pytest.fixture
def inner(
    manager: ProcessManager, trees: ProcessTreeManager, containment: str, tmp_path: Path, pin: Pin
) -> tuple[int, object, list[OsProcess]]:
    """An inner host, its owner, and the pinned members of the inner tree."""
    owner = manager.create_process("owner")
    command = [sys.executable, "-c", INNER_HOST, str(tmp_path / "pids"), containment]
    child = trees.spawn(owner.pid, command)
    members = [pin(os_pid) for os_pid in pids_in(tmp_path / "pids", 3)]
    kernel.eventually(
        lambda: [kernel.parent(each.os_pid) for each in members] == [child.os_pid] * 3,
        "the inner orphans came to the inner host",
    )
    return owner.pid, child, members


def test_an_inner_host_is_terminated_with_its_workers(
    manager: ProcessManager, inner: tuple[int, object, list[OsProcess]]
) -> None:
    """Its tree is part of the outer one."""
    owner, _, members = inner
    result = manager.terminate_process(owner)

    assert result.is_success
    assert not any(each.is_there() for each in members)


@pytest.mark.parametrize("is_looked_at", [False, True])
def test_an_inner_host_that_is_killed(
    manager: ProcessManager,
    trees: ProcessTreeManager,
    inner: tuple[int, object, list[OsProcess]],
    is_looked_at: bool,
) -> None:
    """It could not clean up: its orphans come to this host, which knows whose they are (ray#2005).

    Also if this host has looked at them before, when they were the inner host's.
    """
    owner, child, members = inner
    if is_looked_at:
        # Its own reaper is one more, and what that has started.
        assert len(trees.members(owner, child)) >= 4
    assert child.send_signal(9)  # type: ignore[attr-defined]  # a Child
    child.exited.result(10)  # type: ignore[attr-defined]  # a Child
    result = manager.terminate_process(owner)

    assert result.is_success
    assert not any(each.is_there() for each in members)


#: An inner host whose worker has made a login, which takes all marks off but those of its birth.
INNER_LOGIN = """
import signal, sys
import probate_processes.cgroup as cgroups
from probate import ProcessManager
cgroups.Cgroup.create = classmethod(lambda *_: None)
daemon = "(setsid sh -c 'echo $$; exec sleep 300' &); exec sleep 300"
with ProcessManager.builder().with_grace(0).build() as manager:
    manager.spawn(["runuser", "-l", "nobody", "-s", "/bin/sh", "-c", daemon])
    signal.pause()
"""


@pytest.mark.needs_root(reason="a login without a password")
def test_both_hosts_know_an_orphan_behind_a_login(
    manager: ProcessManager, trees: ProcessTreeManager, pin: Pin
) -> None:
    """It wears the slice of the inner tree and the hint of the outer one; each knows its own."""
    if shutil.which("runuser") is None:
        pytest.skip("there is no runuser here")
    for _ in range(2):
        # So that the hint is not the first one that any host gives.
        manager.spawn(SLEEP)
    owner = manager.create_process("owner")
    command = [sys.executable, "-c", INNER_LOGIN]
    child = trees.spawn(owner.pid, command, stdout=subprocess.PIPE)
    assert child.stdout
    with child.stdout:
        daemon = pin(int(child.stdout.readline()))
    inner, orphan = Worn.by(child.os_pid), Worn.by(daemon.os_pid)
    if not (inner.slice and inner.hint):
        pytest.skip("this kernel keeps no hints, or no slices")
    kernel.eventually(lambda: kernel.parent(daemon.os_pid) == child.os_pid, "it is the inner's")

    assert orphan.hint == inner.hint
    assert orphan.slice not in {0, inner.slice}

    child.send_signal(signal.SIGKILL)
    child.exited.result(10)
    result = manager.terminate_process(owner)

    assert result.is_success
    assert not daemon.is_there()


#: An inner host that has been looked at by the outer one, and then ends its own worker.
INNER_ENDER = """
import pathlib, sys
import probate_processes.cgroup as cgroups
from probate import ProcessManager
path = pathlib.Path(sys.argv[1])
if sys.argv[2] == "no cgroup":
    cgroups.Cgroup.create = classmethod(lambda *_: None)
bare = "(env -i setsid sh -c 'echo $$ >> \\"$0\\"; exec sleep 300' \\"$0\\" &) ;"
with ProcessManager.builder().with_grace(0).build() as manager:
    worker = manager.spawn(["sh", "-c", f"sleep 0.1; {bare} exec sleep 300", str(path)])
    sys.stdin.readline()
    worker.terminate()
    print("ended", flush=True)
    sys.stdin.readline()
"""


def test_the_outer_host_does_not_take_the_inner_ones_marks_away(
    manager: ProcessManager, trees: ProcessTreeManager, containment: str, tmp_path: Path, pin: Pin
) -> None:
    """An inner host still finds its orphans after the outer one has looked at all of them."""
    owner = manager.create_process("owner")
    command = [sys.executable, "-c", INNER_ENDER, str(tmp_path / "pids"), containment]
    child = trees.spawn(owner.pid, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    orphan = pin(*pids_in(tmp_path / "pids"))
    kernel.eventually(lambda: kernel.parent(orphan.os_pid) == child.os_pid, "it has come home")
    trees.members(owner.pid, child)
    assert child.stdin
    assert child.stdout
    child.stdin.write(b"\n")
    child.stdin.flush()
    with child.stdout:
        assert child.stdout.readline() == b"ended\n"

        assert not orphan.is_there()
        assert kernel.lives(child.os_pid)


#: Becomes nobody, as a host; its worker was started before, by root, and stays root's.
UNPRIVILEGED_HOST = """
import os, subprocess, sys
root = subprocess.Popen(["sh", "-c", "sleep 300 & echo $!; exec sleep 300"], stdout=-1, stderr=-3)
roots = [root.pid, int(root.stdout.readline())]
import psutil, probate_processes.cgroup, probate_processes.native
from probate import ProcessManager, ResourceOrchestrator
orchestrator = ResourceOrchestrator().discover(only=["processes"])
with ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0).build() as m:
    m.spawn(["true"]).terminate()
    os.setresuid(65534, 65534, 65534)
    worker = m.spawn(["sh", "-c", "(setsid sleep 300 &) ; exec sleep 300"])
    print(worker.terminate())
    owner = m.create_process("owner")
    owner.adopt(root)
    result = owner.terminate()
    print(result.is_success, [str(error) for error in result.errors][0].partition(": ")[2][:200])
    print([os.path.exists(f"/proc/{each}/status") for each in roots])
    print(*roots)
"""


def test_who_may_not_be_signalled_is_named(pin: Pin) -> None:
    """A process of another user, in a tree of a host that is not root: an error, and no hang."""
    if os.geteuid() != 0:
        pytest.skip("to become somebody else takes root")
    host = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED_HOST],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    lines = host.stdout.splitlines()
    roots = [pin(int(word)) for word in lines[-1].split()] if lines else []

    assert "Traceback" not in host.stderr
    assert lines[0] == "PID 2 cleanup: 1 resources freed, 0 bytes freed, 0 errors"
    assert lines[1].startswith("False ")
    assert "not permitted to kill" in lines[1]
    assert all(str(each.os_pid) in lines[1] for each in roots)
    assert lines[2] == "[True, True]"
