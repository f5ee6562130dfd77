"""A manager for tests that spawn: nothing of what was started outlives it, by the kernel's word."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reapers import is_helper
from spawn_kernel import changes_since

from probate import OsProcess, ProcessManager, ResourceOrchestrator
from probate.system.osprocess import stat_of
from probate.testing.witness import KernelView
from probate_processes.cgroup import Cgroup
from probate_processes.procfs import cgroup_of, children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKER = "PROBATE_TEST_HOUSE"
_numbers = itertools.count(1)

#: How processes are contained: by a cgroup v2 where the machine has one, or without.
CONTAINMENTS = ("cgroup", "none")

#: Seconds within which everything comes to pass, however slow the machine.
PATIENCE = 30.0


@contextlib.contextmanager
def house(
    monkeypatch: pytest.MonkeyPatch,
    containment: str = "none",
    *,
    grace: float = 5,
    orchestrator: ResourceOrchestrator | None = None,
) -> Iterator[ProcessManager]:
    """A manager with this containment; in the end all that was spawned is killed, and missed."""
    token = f"{os.getpid()}-{next(_numbers)}"
    monkeypatch.setenv(MARKER, token)
    if containment == "none":
        monkeypatch.setattr(Cgroup, "create", lambda _: None)
    elif not _has_cgroups():
        pytest.skip("no cgroup v2 here that could be written to")
    if orchestrator is None:
        orchestrator = ResourceOrchestrator().discover()
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    gc.collect()
    before, children = KernelView.take(), set(children_of(os.getpid()))
    try:
        with builder.with_grace(grace).with_deadline(15).build() as manager:
            yield manager
    finally:
        left = kill_marked(token)
    differences = changes_since(before)

    assert left == []
    assert differences == []
    assert set(children_of(os.getpid())) - children == set()
    assert own_cgroups() == []


def is_alive(os_pid: int) -> bool:
    """Whether a process that was spawned in a house has this pid, and is no zombie.

    By now the pid may be that of somebody else's process, or of a thread, also of this host.
    """
    over = time.monotonic() + PATIENCE
    while True:
        try:
            environment = Path(f"/proc/{os_pid}/environ").read_bytes()
            is_zombie = stat_of(os_pid)[0] in (b"Z", b"X")
        except OSError:
            return False
        # In the middle of execve(2), when its parent knows that it will succeed, it has none yet.
        if environment or is_zombie or time.monotonic() > over:
            return not is_zombie and f"{MARKER}=".encode() in environment


def own_cgroups() -> list[str]:
    """The cgroups that this host has made; other hosts' come and go meanwhile."""
    prefix = f"probate-{os.getpid()}-"
    return [
        f"{parent}/{folder}"
        for parent, folders, _ in os.walk("/sys/fs/cgroup")
        for folder in folders
        if folder.startswith(prefix)
    ]


def wait_for_line(path: Path) -> str:
    """Wait until a worker has written a line; return it."""
    deadline = time.monotonic() + PATIENCE
    while not (path.exists() and (text := path.read_text()).endswith("\n")):
        if time.monotonic() > deadline:
            pytest.fail(f"nothing was written to {path.name}")
        # The kernel tells of no file's end being reached by another.
        time.sleep(0.002)
    return text.rstrip("\n")


def _has_cgroups() -> bool:
    made = Cgroup.create(cgroup_of(os.getpid()))
    return made is not None and made.make() and made.remove()


def kill_marked(token: str) -> list[int]:
    """Kill all that bear the mark; return who they were.

    Not what ends by itself after a host that the test has started: its reaper.
    """
    wanted = f"{MARKER}={token}".encode()
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError), OsProcess.open(int(folder.name)) as process:
            is_marked = wanted in (folder / "environ").read_bytes().split(b"\0")
            if is_marked and not is_helper(folder.name):
                found.append(process.os_pid)
                process.send_signal(signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, process.os_pid, os.WEXITED)
    return found
