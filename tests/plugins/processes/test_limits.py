"""Limits of processes: how many, and what the kernel enforces on each."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import processes_kernel as kernel
import pytest
from processes_kernel import SLEEP

from probate import KindLimits, ResourceLimitExceeded, ResourceLimits
from probate.system import is_subreaper
from probate_processes.cgroup import Cgroup
from probate_processes.procfs import cgroup_of

if TYPE_CHECKING:
    from pathlib import Path

    from probate import ProcessManager
    from probate_processes import ProcessTreeManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def has_controller(name: str) -> bool:
    """Whether a cgroup v2 controller can be used here."""
    cgroup = Cgroup.create(cgroup_of(os.getpid()))
    if cgroup is None or not cgroup.make():
        return False
    try:
        return cgroup.limit(name, 1 << 30)
    finally:
        cgroup.remove()


def test_a_count_is_refused_before_anything_is_started(
    manager: ProcessManager, trees: ProcessTreeManager, mark: str, tmp_path: Path
) -> None:
    """The one too many leaves no trace; when one has ended, there is room again."""
    limits = ResourceLimits(by_kind={"processes": KindLimits(max_count=2)})
    owner = manager.create_process("owner", limits=limits)
    first = trees.spawn(owner.pid, SLEEP)
    trees.spawn(owner.pid, SLEEP)
    touch = ["touch", str(tmp_path / "touched")]
    with pytest.raises(ResourceLimitExceeded, match="2 of at most 2"):
        trees.spawn(owner.pid, touch)

    # The kernel shows an environment a moment after it lets whoever has spawned go on (execve(2)).
    kernel.eventually(lambda: len(kernel.marked(mark)) == 2, "both are there")
    assert not (tmp_path / "touched").exists()

    trees.kill(owner.pid, first)
    trees.spawn(owner.pid, SLEEP)

    kernel.eventually(lambda: len(kernel.marked(mark)) == 2, "there are two again")


def test_processor_time(manager: ProcessManager) -> None:
    """A busy loop gets SIGXCPU (getrlimit(2)) when its second is over."""
    process = manager.spawn(["sh", "-c", "while :; do :; done"], limits=ResourceLimits(cpu=1))
    manager.wait(process.pid, 30)

    assert process.returncode == -signal.SIGXCPU


def test_who_ignores_sigxcpu_is_killed(manager: ProcessManager) -> None:
    """A second later, by the hard limit."""
    script = "trap '' XCPU; while :; do :; done"
    process = manager.spawn(["sh", "-c", script], limits=ResourceLimits(cpu=1))
    manager.wait(process.pid, 30)

    assert process.returncode == -signal.SIGKILL


#: In a grandchild, which tells by its exit code whether the memory was given.
GREEDY = """
import os, resource, sys
# The host sets the limit when it has the pid, and may be kept from it for a moment.
while resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
    pass
if "deep" not in sys.argv:
    sys.exit(os.spawnv(os.P_WAIT, sys.executable, [*sys.orig_argv, "deep"]))
try:
    block = bytearray(1 << 30)
except MemoryError:
    sys.exit(42)
"""


def test_memory_of_grandchildren(manager: ProcessManager) -> None:
    """Descendants inherit the limit; what is asked for beyond is not given."""
    if has_controller("memory"):
        pytest.skip("the whole tree is limited by its cgroup, which kills instead")
    process = manager.spawn(
        [sys.executable, "-SEc", GREEDY], limits=ResourceLimits(memory=400 << 20)
    )
    manager.wait(process.pid, 30)

    assert process.returncode == 42


def test_limits_as_the_kernel_has_them(
    manager: ProcessManager, trees: ProcessTreeManager, tmp_path: Path
) -> None:
    """Soft and hard, of the process and of what it forks."""
    owner = manager.create_process("owner")
    script = 'cat /proc/self/limits > "$0.new"; mv "$0.new" "$0"; exec sleep 300'
    trees.spawn(
        owner.pid,
        ["sh", "-c", f"sleep 0.3; {script}", str(tmp_path / "limits")],
        limits=ResourceLimits(cpu=77),
    )
    kernel.eventually((tmp_path / "limits").exists, "it has looked")
    text = (tmp_path / "limits").read_text()
    line = next(line for line in text.splitlines() if line.startswith("Max cpu time"))

    assert line.split()[3:5] == ["77", "78"]


def test_pids_that_nothing_would_limit_are_refused(
    manager: ProcessManager, trees: ProcessTreeManager, mark: str
) -> None:
    """RLIMIT_NPROC does not bind root: an error that says so, and nothing started."""
    if os.geteuid() != 0:
        pytest.skip("RLIMIT_NPROC binds whoever is not root")
    if has_controller("pids"):
        pytest.skip("a cgroup v2 pids controller can be used here")
    owner = manager.create_process("owner")
    with pytest.raises(ValueError, match="5 pids cannot be enforced: RLIMIT_NPROC does not bind"):
        trees.spawn(owner.pid, SLEEP, limits=ResourceLimits(pids=5))

    assert kernel.marked(mark) == set()
    assert kernel.cgroups() == set()
    assert not is_subreaper()
    assert owner.pid not in trees.table


def test_the_limits_of_the_process_manager_hold_for_what_it_spawns(
    manager: ProcessManager,
) -> None:
    """A process's own limits are those of its OS process."""
    process = manager.spawn(SLEEP, limits=ResourceLimits(cpu=5))
    with open(f"/proc/{process.os_pid}/limits") as file:
        line = next(line for line in file if line.startswith("Max cpu time"))

    assert line.split()[3:5] == ["5", "6"]
