"""Fixtures of kind `processes`: both ways of containment, and a kernel without leftovers."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from typing import TYPE_CHECKING

import processes_kernel as kernel
import pytest

from probate import OsProcess, death_watch
from probate.system import is_subreaper
from probate_processes.cgroup import Cgroup
from probate_processes.containment import late_containment
from probate_processes.procfs import cgroup_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from probate import ProcessManager, ResourceOrchestrator
    from probate_processes import ProcessTreeManager

_numbers = itertools.count(1)


@pytest.fixture(params=["cgroup", "no cgroup"], autouse=True)
def containment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways: with a cgroup v2, where this machine has one that we may write to, and without."""
    if request.param == "no cgroup":
        monkeypatch.setattr(Cgroup, "create", classmethod(lambda *_: None))
    else:
        cgroup = Cgroup.create(cgroup_of(os.getpid()))
        if cgroup is None or not cgroup.make():
            pytest.skip("there is no cgroup v2 here that may be written to")
        cgroup.remove()
    return str(request.param)


@pytest.fixture(autouse=True)
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What all processes of the test are marked with; afterwards the kernel shows none of them.

    Nor a child that was not there before, a cgroup of this host, or a subreaper.
    """
    value = f"{os.getpid()}-{next(_numbers)}"
    monkeypatch.setenv(kernel.MARK, value)
    before = kernel.children()
    kernel.left_elsewhere.update(kernel.cgroups())
    yield value
    survivors = kernel.kill_all(value)
    left = kernel.children() - before
    for os_pid in left:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(os_pid, os.WNOHANG)
    death_watch.join_if_idle()

    assert survivors == {}
    assert left == set()
    assert kernel.cgroups() == set()
    assert not is_subreaper()


@pytest.fixture
def manager(manager: ProcessManager) -> Iterator[ProcessManager]:
    """As everywhere; closed, and with nothing going on that a start has begun."""
    yield manager
    manager.close()
    late_containment.join()


@pytest.fixture
def trees(manager: ProcessManager) -> ProcessTreeManager:
    """The installed plugin's manager, as the process manager has it."""
    found: ProcessTreeManager = manager.orchestrator["processes"].manager
    return found


@pytest.fixture
def only_trees(orchestrator: ResourceOrchestrator) -> ProcessTreeManager:
    """The installed plugin's manager, with no process manager: any pid is a key."""
    found: ProcessTreeManager = orchestrator["processes"].manager
    return found


@pytest.fixture
def pin() -> Iterator[Callable[[int], OsProcess]]:
    """Pins processes, for good: those that shed their environment are killed by it afterwards."""
    pinned: list[OsProcess] = []

    def pin_one(os_pid: int) -> OsProcess:
        pinned.append(OsProcess.open(os_pid))
        return pinned[-1]

    yield pin_one
    for process in pinned:
        with process:
            if process.send_signal(signal.SIGKILL):
                kernel.wait_for_exit(process)
            with contextlib.suppress(ChildProcessError):
                process.exit_code(reap=True)
