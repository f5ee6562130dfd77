"""Children outlive a host that is killed: whoever settles its estate ends them, and nobody else."""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from journal_hosts import JournalHost, kill_all, reaper_of
from processes_kernel import eventually, pids_in
from spawn_sleepers import sleeper, wait_for_exit

from probate import OsProcess, ResourceOrchestrator
from probate.settlement import HostState, read_accounts, sweep

if TYPE_CHECKING:
    from probate.settlement import HostAccount

#: A leader; a child in a session of its own, whose child has been left by its parent; one that
#: has nothing of us in its environment. All of them ignore what asks them to stop.
TREE = """
trap '' TERM HUP
echo $$ >>"$PIDS"
setsid sh -c 'echo $$ >>"$PIDS"; (exec sh -c "echo \\$\\$ >>$PIDS; sleep 1000") & sleep 1000' &
env -i PIDS="$PIDS" PATH="$PATH" setsid sh -c 'echo $$ >>"$PIDS"; sleep 1000' &
wait
"""

#: So that a host has no cgroups, as where none may be written to.
WITHOUT_CGROUP = """
from probate_processes.cgroup import Cgroup
Cgroup.create = classmethod(lambda *_: None)
"""

SPAWNS = """
manager = build()
for path in sys.argv[3:]:
    manager.spawn(["sh", "-c", sys.argv[2]], env={**os.environ, "PIDS": path})
say("spawned")
sys.stdin.read()
"""

#: Of a tree of which each process lives for a moment; whoever is left holds the FIFO open.
HOPS = """
import os, sys
held = os.open(sys.argv[1], os.O_WRONLY)
os.set_inheritable(held, True)
os.write(held, b"begun")
for _ in range(1000):
    if os.fork():
        os._exit(0)
os.execvpe("sleep", ["sleep", "300"], {})
"""
SPAWNS_HOPS = """
manager = build()
manager.spawn([sys.executable, "-SEc", sys.argv[2], sys.argv[3]])
sys.stdin.read()
"""

ROUNDS = 100 if os.environ.get("PROBATE_CHAOS") else 5

#: How many of a tree write their pids.
WRITE = 4


@pytest.fixture
def containment() -> None:
    """Of this process: it contains nobody here."""


@pytest.fixture(params=["cgroup", "no cgroup"])
def of_host(request: pytest.FixtureRequest) -> str:
    """What is put before a host's program, to contain its trees so."""
    return "" if request.param == "cgroup" else WITHOUT_CGROUP


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def swept(state: Path, *, dry_run: bool = False) -> list[HostAccount]:
    orchestrator = ResourceOrchestrator().discover(only=["processes"])
    return sweep(orchestrator, str(state), dry_run=dry_run)


def trees_of(host: JournalHost, paths: list[Path]) -> list[OsProcess]:
    """All that have written their pids, pinned."""
    assert host.line() == "spawned"
    return [OsProcess.open(os_pid) for path in paths for os_pid in pids_in(path, WRITE)]


@pytest.mark.parametrize("count", [1, 5])
def test_the_trees_of_a_killed_host_are_ended(
    state: Path, tmp_path: Path, of_host: str, count: int
) -> None:
    """All of them, wherever they have gone to; a program that is alike lives on."""
    paths = [tmp_path / f"pids-{number}" for number in range(count)]
    program = of_host + SPAWNS
    with JournalHost(program, state, TREE, *map(str, paths)) as host, sleeper() as beside:
        members = trees_of(host, paths)
        reaper = reaper_of(host.process.pid)
        host.kill()
        for member in members:
            eventually(member.has_exited, f"{member.os_pid} is ended")
            member.close()
        wait_for_exit(reaper)

        assert beside.poll() is None
        (account,) = read_accounts(str(state))
        assert account.state is HostState.SETTLED
        assert [(row.kind, str(row.outcome)) for row in account.rows] == [
            ("processes", "released")
        ] * count


def test_a_tree_that_changes_its_pid_all_the_time_ends_with_its_host(
    state: Path, tmp_path: Path, of_host: str
) -> None:
    """Who is listed is gone by the next moment, and has left a child: it is not taken for gone."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for _ in range(ROUNDS):
        alive = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        with (
            open(alive, "rb", buffering=0) as pipe,
            JournalHost(of_host + SPAWNS_HOPS, state, HOPS, str(fifo)) as host,
        ):
            assert select.select([pipe], [], [], 15)[0]
            assert pipe.read(16) == b"begun"
            reaper = reaper_of(host.process.pid)
            host.kill()
            wait_for_exit(reaper)

            assert pipe.read(1) == b""


def test_strangers_that_come_and_go_all_the_time_are_no_hindrance(
    state: Path, tmp_path: Path, of_host: str
) -> None:
    """Nobody new can be waited for; but those that are seen as they come tell whose they are."""
    if "PROBATE_CHAOS" not in os.environ:
        pytest.skip("a storm that holds up other tests: make soak")
    eight = "import os\nfor _ in range(3):\n    os.fork()\n"
    forever = [sys.executable, "-SEc", f"{eight}while True:\n    os.fork() and os._exit(0)"]
    paths = [tmp_path / "pids"]
    with JournalHost(of_host + SPAWNS, state, TREE, str(paths[0])) as host:
        members = trees_of(host, paths)
        reaper = reaper_of(host.process.pid)
        strangers = subprocess.Popen(forever, process_group=0)
        try:
            host.kill()
            wait_for_exit(reaper)
        finally:
            # Of a whole group, no fork escapes it (kill(2)).
            os.killpg(strangers.pid, signal.SIGKILL)
            strangers.wait()

        for member in members:
            eventually(member.has_exited, f"{member.os_pid} is ended")
        (account,) = read_accounts(str(state))
        assert [str(row.outcome) for row in account.rows] == ["released"]
    for member in members:
        member.close()


def test_a_sweep_ends_what_host_and_reaper_left(state: Path, tmp_path: Path) -> None:
    """A dry run says so and touches nobody; what is over by then is accounted for as such."""
    paths = [tmp_path / "first", tmp_path / "second"]
    with JournalHost(SPAWNS, state, TREE, *map(str, paths)) as host:
        members = trees_of(host, paths)
        kill_all(reaper_of(host.process.pid), host.process.pid)
        host.kill()
        (tried,) = swept(state, dry_run=True)
        assert not any(member.has_exited() for member in members)
        (account,) = swept(state)

        assert [str(row.outcome) for row in account.rows] == ["released", "released"]
        assert tried.rows == account.rows
        assert all(member.has_exited() for member in members)
        for member in members:
            member.close()


def test_what_a_host_had_adopted_is_ended_with_what_it_forked(state: Path, tmp_path: Path) -> None:
    """A Popen of the host's own, and what it forks from then on."""
    source = """
    import subprocess
    manager = build()
    process = manager.create_process("worker")
    script = 'read -r _; echo $$ >>"$1"; (setsid sleep 1000 & echo $! >>"$1"); sleep 1000'
    popen = subprocess.Popen(["sh", "-c", script, "sh", sys.argv[2]], stdin=subprocess.PIPE)
    process.adopt(popen)
    os.write(popen.stdin.fileno(), b"go\\n")
    say("spawned")
    sys.stdin.read()
    """
    path = tmp_path / "pids"
    with JournalHost(source, state, str(path)) as host:
        assert host.line() == "spawned"
        members = [OsProcess.open(os_pid) for os_pid in pids_in(path, 2)]
        reaper = reaper_of(host.process.pid)
        host.kill()
        wait_for_exit(reaper)

        assert all(member.has_exited() for member in members)
        for member in members:
            member.close()
        (account,) = read_accounts(str(state))
        assert [str(row.outcome) for row in account.rows] == ["released"]


def test_what_has_ended_in_time_leaves_no_row(state: Path) -> None:
    """A host that has closed its manager leaves no store."""
    source = """
    with build() as manager:
        manager.spawn(["sleep", "1000"])
        over = manager.spawn(["true"])
        manager.wait(over, 30)
    say(os.listdir(sys.argv[1]))
    """
    with JournalHost(source, state) as host:
        assert host.line() == "[]"


def test_a_word_carried_to_a_stranger_is_no_evidence(state: Path, tmp_path: Path) -> None:
    """A batch system hands on the environment of whoever submits: that alone ends nobody."""
    source = """
    manager = build()
    script = 'echo "$PROBATE_TREE" >"$1"; exec sleep 1000'
    process = manager.spawn(["sh", "-c", script, "sh", sys.argv[2]])
    say("spawned")
    sys.stdin.read()
    """
    path = tmp_path / "word"
    with JournalHost(source, state, str(path)) as host:
        assert host.line() == "spawned"
        eventually(lambda: path.exists() and path.read_text().strip(), "it has said its word")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PROBATE_TREE", path.read_text().strip())
            with sleeper(own_session=True) as stranger:
                reaper = reaper_of(host.process.pid)
                host.kill()
                wait_for_exit(reaper)

                assert stranger.poll() is None
        (account,) = read_accounts(str(state))
        assert [str(row.outcome) for row in account.rows] == ["released"]


@pytest.mark.timeout(600)
def test_one_that_is_forked_and_not_yet_executed_is_ended(state: Path, of_host: str) -> None:
    """The host is killed at any moment from the first intent on, again and again."""
    source = """
    import threading
    manager = build()
    say("ready")
    sys.stdin.readline()
    threading.Timer(float(sys.argv[3]), os.kill, (os.getpid(), signal.SIGKILL)).start()
    while True:
        manager.spawn(["sleep", sys.argv[2]])
    """
    for number in range(ROUNDS):
        # What tells them from all others on this machine.
        seconds = f"{1000 + secrets.randbelow(10**9)}.25"
        with JournalHost(of_host + dedent(source), state, seconds, str(number * 0.004)) as host:
            assert host.line() == "ready"
            assert host.process.stdin is not None
            host.process.stdin.write("\n")
            host.process.stdin.flush()
            host.process.wait(30)
            if not (state / "accounts").exists():
                # It was killed before there was a reaper.
                swept(state)
            eventually(partial(is_settled, state, seconds), "all are ended, and accounted for")


def is_settled(state: Path, seconds: str) -> bool:
    """Whether no store is left, and no process that sleeps for so long."""
    if list(state.glob("host-*")):
        return False
    for name in os.listdir("/proc"):  # noqa: PTH208  names are what is needed
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"sleep", seconds.encode()]:
                return False
    return True
