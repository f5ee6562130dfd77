"""What running hosts tell of themselves: `probate ps`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from children import exit_code_of_fork

from probate import ProcessManager, ResourceOrchestrator
from probate.process.status import hosts
from probate.system import start_time_of
from probate.testing import KernelView

if TYPE_CHECKING:
    import pytest

PROBATE = Path(sys.executable).with_name("probate")


def ps(*options: str) -> str:
    ran = subprocess.run(
        [PROBATE, "ps", *options], capture_output=True, text=True, timeout=30, check=True
    )

    assert ran.stderr == ""
    return ran.stdout


def this_host() -> list[dict[str, Any]]:
    """The processes of this host, as a stranger is told."""
    reports = [each for each in json.loads(ps("--json")) if each["os_pid"] == os.getpid()]
    processes: list[dict[str, Any]] = [each for host in reports for each in host["processes"]]
    return processes


def test_a_host_that_supervises_is_found_by_a_stranger(manager: ProcessManager) -> None:
    """Kinds, bytes, the tree, and what the OS processes use, as JSON."""
    parent = manager.create_process("app")
    maps = manager.orchestrator["mmap"].manager
    maps.map_anonymous(parent.pid, 8192)
    worker = manager.spawn(["sleep", "1000"], parent=parent)

    app, sleep = this_host()
    assert app["process"]["name"] == "app"
    assert app["resources"] == {"mmap": {"count": 1, "nbytes": 8192}}
    assert app["os"] is None
    assert sleep["process"]["parent"] == parent.pid
    assert sleep["process"]["os_pid"] == worker.os_pid
    assert sleep["os"]["processes"] == 1
    assert sleep["os"]["rss"] > 0


def test_those_who_are_owned_stand_below_their_owner(manager: ProcessManager) -> None:
    """The table for people is a tree; names are shown as they are."""
    first = manager.create_process("first")
    manager.create_process("second")
    manager.spawn(["sleep", "1000"], name="[red]worker", parent=first)

    _, _, table = ps().partition(f"host {os.getpid()}: ")
    lines = [line.split() for line in table.splitlines()]
    names = [words[1] for words in lines if words and words[0].isdigit()]
    assert names[:3] == ["first", "[red]worker", "second"]


def test_a_host_is_silent_once_it_supervises_nothing(manager: ProcessManager) -> None:
    """The socket is there for as long as a spawned process is, and no longer."""
    worker = manager.spawn(["sleep", "1000"])
    assert [host.os_pid for host in hosts() if host.os_pid == os.getpid()] == [os.getpid()]

    worker.terminate()
    assert [host for host in hosts() if host.os_pid == os.getpid()] == []


def test_a_host_without_os_processes_answers_if_asked_to(
    orchestrator: ResourceOrchestrator, nothing_remains: None
) -> None:
    """`with_status()` answers from the start to the end, and leaves nothing."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_status().build() as manager:
        manager.create_process("logical")

        assert [each["process"]["name"] for each in this_host()] == ["logical"]
    assert this_host() == []


def test_a_killed_host_leaves_no_name_behind() -> None:
    """The kernel takes the name back, however the host dies."""
    script = (
        "import signal\n"
        "from probate import ProcessManager, ResourceOrchestrator\n"
        "builder = ProcessManager.builder().with_resource_orchestrator(ResourceOrchestrator())\n"
        "manager = builder.with_status().build()\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        host.stdout.readline()
        before = [each for each in hosts() if each.os_pid == host.pid]
        host.send_signal(signal.SIGKILL)
        host.wait(10)

    assert len(before) == 1
    assert [each for each in hosts() if each.os_pid == host.pid] == []


def test_a_name_that_somebody_else_has_taken_is_not_believed() -> None:
    """Whose a socket is, the kernel knows: the name says nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as impostor:
        impostor.bind(f"\0probate-host/{os.getppid()}/{start_time_of(os.getppid())}/1")
        impostor.listen()

        assert [host for host in hosts() if host.os_pid == os.getppid()] == []


def test_a_host_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left out once its time is over."""
    monkeypatch.setattr("probate.process.status._PATIENCE", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mute:
        mute.bind(f"\0probate-host/{os.getpid()}/0/1")
        mute.listen()

        assert [host for host in hosts() if host.os_pid == os.getpid()] == []


def test_a_forked_child_does_not_answer_for_its_parent(manager: ProcessManager) -> None:
    """Nor does it keep the parent's name."""
    manager.spawn(["sleep", "1000"])

    def child() -> None:
        held = KernelView.take().sockets
        listening = Path("/proc/net/unix").read_text()
        inodes = re.findall(r" (\d+) @probate-host/", listening)
        assert [inode for inode in inodes if f"socket:[{inode}]" in held] == []

    assert exit_code_of_fork(child) == 0
