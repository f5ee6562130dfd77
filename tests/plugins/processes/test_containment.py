"""Trees come into their cgroups after their start: no spawn waits for it, and nobody is missed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import processes_kernel as kernel
import pytest
from processes_kernel import SLEEP, pids_in

from probate_processes.cgroup import Cgroup
from probate_processes.containment import late_containment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from probate import ProcessManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture(autouse=True)
def cgroups(containment: str) -> None:
    if containment != "cgroup":
        pytest.skip("there is no cgroup to come into")


def test_all_of_a_tree_come_into_its_cgroup(manager: ProcessManager, tmp_path: Path) -> None:
    """Also those whom it forked before it was there, wherever they have gone to."""
    script = '(setsid sh -c \'echo $$ >> "$0"; exec sleep 300\' "$0" &); exec sleep 300'
    for number in range(10):
        pids = tmp_path / f"pids{number}"
        process = manager.spawn(["sh", "-c", script, str(pids)])
        (daemon,) = pids_in(pids)
        for os_pid in (process.os_pid or 0, daemon):
            kernel.await_containment(os_pid)

        assert kernel.cgroup(daemon) == kernel.cgroup(process.os_pid or 0)


@pytest.fixture
def slow_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """One that takes until the event to move a process (cgroup_threadgroup_rwsem)."""
    goes_on = threading.Event()
    add = Cgroup.add

    def add_late(cgroup: Cgroup, os_pid: int) -> bool:
        return goes_on.wait(30) and add(cgroup, os_pid)

    monkeypatch.setattr(Cgroup, "add", add_late)
    yield goes_on
    goes_on.set()


def test_no_spawn_waits_for_it(manager: ProcessManager, slow_kernel: threading.Event) -> None:
    """All run by then, and are moved when the kernel gets to it."""
    spawned = [manager.spawn(SLEEP).os_pid or 0 for _ in range(3)]

    assert [kernel.is_contained(os_pid) for os_pid in spawned] == [False] * 3

    slow_kernel.set()
    for os_pid in spawned:
        kernel.await_containment(os_pid)


def test_no_spawn_waits_for_the_cgroup_to_be_made(
    manager: ProcessManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it fail with it: the marks must do then, as where there are no cgroups."""
    goes_on = threading.Event()

    def refuse_late(_: Cgroup) -> bool:
        assert goes_on.wait(30)
        return False

    monkeypatch.setattr(Cgroup, "make", refuse_late)
    process = manager.spawn(["sh", "-c", "(setsid sleep 300 &); exec sleep 300"])
    goes_on.set()
    late_containment.join()

    assert not kernel.is_contained(process.os_pid or 0)
    assert process.terminate().is_success


def test_one_that_ends_meanwhile(manager: ProcessManager, slow_kernel: threading.Event) -> None:
    """By itself, or by being ended: neither leaves a cgroup."""
    ended, quick = manager.spawn(SLEEP), manager.spawn(["true"])
    with kernel.in_thread(ended.terminate):
        manager.wait(quick.pid, 15)
        slow_kernel.set()

    assert kernel.is_gone(ended.os_pid or 0)
    kernel.eventually(lambda: kernel.cgroups() == set(), "both cgroups are removed")
