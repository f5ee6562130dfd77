"""What running hosts tell of themselves: `probate ps`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from children import exit_code_of_fork

from probate import ProcessManager, ResourceOrchestrator
from probate.cli.ps import in_tree_order, print_hosts
from probate.models import ProcessInfo, ProcessState
from probate.process.hosts import hosts
from probate.process.status import HostReport, ProcessReport
from probate.system import start_time_of
from probate.testing import KernelView

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_a_name_with_no_room_says_whose_it_seems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a connection the kernel does not tell who it is, and neither does the list."""
    monkeypatch.setattr("probate.process.hosts._PATIENCE", 0.2)
    name = host_name(7)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as full:
        full.bind(name)
        full.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
            first.connect(name)
            (report,) = (host for host in hosts() if host.os_pid == os.getpid())

    assert (report.uid, report.problem[:18]) == (None, "took no connection")


#: A host that is asked, and does in its own way what the tests below say.
MANNERS = r"""
import json, os, socket, sys, time
if sys.argv[2]:
    os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
start = open("/proc/self/stat").read().rpartition(")")[2].split()[19]
listeners = []
for number in range(int(sys.argv[3])):
    listeners.append(socket.socket(socket.AF_UNIX))
    listeners[-1].bind(f"\0probate-host/{os.getpid()}/{start}/{number}")
    listeners[-1].listen()
print("ready", flush=True)
held = []
while True:
    connection, _ = listeners[0].accept()
    held.append(connection)
    try:
        while sys.argv[1] == "drips":
            connection.sendall(b" ")
            time.sleep(0.05)
        while sys.argv[1] == "floods":
            connection.sendall(b" " * (1 << 20))
        if sys.argv[1] not in ("mute", "drips", "floods"):
            connection.sendall(sys.argv[1].encode())
            connection.close()
    except OSError:
        pass
"""


def host_name(number: int) -> str:
    """A name that this process may have as a host."""
    return f"\0probate-host/{os.getpid()}/{start_time_of(os.getpid())}/{number}"


@contextlib.contextmanager
def stranger(manner: str, *, uid: int | None = None, count: int = 1) -> Iterator[int]:
    """A host that answers by its manner, perhaps another user's; its pid."""
    argv = [sys.executable, "-c", MANNERS, manner, "" if uid is None else str(uid), str(count)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as host:
        try:
            assert host.stdout is not None
            assert host.stdout.readline() == b"ready\n"
            yield host.pid
        finally:
            host.kill()


def problem_of(os_pid: int, reports: list[HostReport]) -> list[str]:
    return [host.problem for host in reports if host.os_pid == os_pid]


def test_one_deadline_for_all_hosts(
    manager: ProcessManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many say nothing, or say it slowly: together they take no more time than one."""
    manager.spawn(["sleep", "1000"])
    monkeypatch.setattr("probate.process.hosts._PATIENCE", 1.5)
    with stranger("mute") as first, stranger("mute", count=200) as many, stranger("drips") as slow:
        since = time.monotonic()
        found = hosts()
        took = time.monotonic() - since

    assert took < 4
    silent = ["did not answer within 1.5 s"]
    assert [problem_of(os_pid, found) for os_pid in (first, slow)] == [silent, silent]
    assert problem_of(many, found)[:100] == silent * 100
    assert len(problem_of(many, found)) == 200
    assert problem_of(os.getpid(), found) == [""]


def test_what_a_host_says_has_an_end() -> None:
    """One that says more is named, and the others are listed as ever."""
    with stranger("floods") as os_pid:
        (problem,) = problem_of(os_pid, hosts())

    assert problem.startswith("said more than 8 MiB")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("nonsense", "its answer is no report"),
        ("", "hung up without an answer"),
        ('{"os_pid": 1, "command": [], "processes": [{}]}', "its answer is no report"),
        ('{"os_pid": 1, "command": ["init"], "processes": [], "uid": 0, "problem": "x"}', ""),
    ],
)
def test_an_answer_that_tells_nothing_is_named_with_its_host(said: str, problem: str) -> None:
    """Who it is, the kernel tells: a host cannot take another's pid or user."""
    with stranger(said) as os_pid:
        (report,) = (host for host in hosts() if host.os_pid == os_pid)

    assert (report.problem, report.uid) == (problem, os.geteuid())
    assert report.command[:1] == ("init",) if not problem else (sys.executable,)


def test_a_host_that_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """To people with its command line; what is no letter in it reaches no terminal."""
    command = ("sh", "\x1b[2J\x1b]0;owned\x07", "\u202e")
    report = HostReport(os_pid=7, command=command, processes=(), uid=1 << 30, problem="is \x1bout")
    print_hosts([report])

    first, second = capsys.readouterr().out.splitlines()
    assert first == f"host 7 (uid {1 << 30}): sh '\\x1b[2J\\x1b]0;owned\\x07' '\\u202e'"
    assert second == "  is \\x1bout"


def reported(pid: int, parent: int | None, name: str = "x") -> ProcessReport:
    info = ProcessInfo(
        pid=pid, name=name, state=ProcessState.RUNNING, parent=parent, created_at=1.0
    )
    return ProcessReport(process=info, resources={})


def test_a_tree_that_a_host_makes_up_is_no_larger_than_what_it_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each process is shown once, though several have one pid; no deeper than a line, or wider."""
    doubled = [reported(pid, pid - 1 or None) for pid in range(1, 40) for _ in range(2)]
    assert len(list(in_tree_order(doubled))) == len(doubled)

    deep = [reported(pid, pid - 1 or None, "n" * 10_000) for pid in range(1, 500)]
    print_hosts([HostReport(os_pid=7, command=(), processes=tuple(deep))])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(deep)
    assert max(map(len, lines)) < 400


@pytest.mark.needs_root(reason="acts as another user")
def test_hosts_of_other_users(manager: ProcessManager) -> None:
    """Root sees them, with whose they are; another user neither root's nor why."""
    manager.spawn(["sleep", "1000"])
    empty = '{"os_pid": 1, "command": [], "processes": []}'
    with stranger(empty, uid=65534) as theirs, stranger(empty, uid=65533) as others:
        assert {host.os_pid: host.uid for host in hosts()}.items() >= {
            (theirs, 65534),
            (others, 65533),
            (os.getpid(), 0),
        }

        def child() -> None:
            os.setgid(65534)
            os.setuid(65534)
            assert {host.os_pid for host in hosts()} & {theirs, others, os.getppid()} == {theirs}

        assert exit_code_of_fork(child) == 0


#: A host that has no descriptors left; with each line that it reads, the time it has computed, and
#: at the second one it has some again.
EXHAUSTED = """
import os, resource, sys, time
from probate import ProcessManager, ResourceOrchestrator
builder = ProcessManager.builder().with_resource_orchestrator(ResourceOrchestrator())
manager = builder.with_status().build()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
for turn in range(3):
    print(time.process_time(), flush=True)
    sys.stdin.readline()
    if turn == 1:
        for fd in held:
            os.close(fd)
"""


def test_a_host_without_descriptors_waits_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE at the answering side: it does not spin, and answers when there are some."""
    argv = [sys.executable, "-c", EXHAUSTED]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as host:
        assert host.stdin is not None
        assert host.stdout is not None
        before = float(host.stdout.readline())
        monkeypatch.setattr("probate.process.hosts._PATIENCE", 0.8)
        exhausted = problem_of(host.pid, hosts())
        monkeypatch.undo()
        host.stdin.write(b"more\n")
        host.stdin.flush()
        used = float(host.stdout.readline()) - before
        host.stdin.write(b"more\n")
        host.stdin.flush()
        host.stdout.readline()
        answered = problem_of(host.pid, hosts())
        host.stdin.close()

    assert exhausted == ["did not answer within 0.8 s"]
    assert used < 0.1
    assert answered == [""]


def test_a_forked_child_does_not_answer_for_its_parent(manager: ProcessManager) -> None:
    """Nor does it keep the parent's name."""
    manager.spawn(["sleep", "1000"])

    def child() -> None:
        held = KernelView.take().sockets
        listening = Path("/proc/net/unix").read_text()
        inodes = re.findall(r" (\d+) @probate-host/", listening)
        assert [inode for inode in inodes if f"socket:[{inode}]" in held] == []

    assert exit_code_of_fork(child) == 0
