"""Hosts that exec, side by side, in namespaces, before a reboot: none is taken for another."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import seccomp
from attackers import STRANGER, new_folder
from children import exit_code_of_fork
from journal_hosts import PATIENCE, JournalHost, kill_all, reaper_of, wait_until_gone, wait_while
from journal_stores import dead_store, row_of

from probate import ResourceOrchestrator
from probate.journal import file_handle, path_identity, pid_namespace
from probate.journal.folders import HEADER, read_json
from probate.journal.quarantine import Quarantine
from probate.settlement import HostState, sweep

if TYPE_CHECKING:
    from probate.settlement import HostAccount

#: Makes a segment and a temporary file in a folder, says where, and does what it is told.
HOLDS = """
manager = build()
process = manager.create_process("worker")
segment = manager.orchestrator["memory"].manager.create_shared_memory(process.pid, size=4096)
file = manager.orchestrator["files"].manager.temporary_file(process.pid, directory=sys.argv[2])
say("/dev/shm/" + segment.name, file.name)
if sys.stdin.readline() == "exec\\n":
    os.execv("/bin/sleep", ["sleep", "1000"])
"""


def swept(state: Path, kinds: str = "files memory") -> list[HostAccount]:
    return sweep(ResourceOrchestrator().discover(only=kinds.split()), str(state))


def held_by(host: JournalHost) -> list[Path]:
    return [Path(each) for each in host.line().split()]


@pytest.mark.parametrize("dies", ["host", "both"])
def test_a_host_that_execs_has_not_died(tmp_path: Path, dies: str) -> None:
    """Another program has its pid, and may use what is there: settled when that has ended."""
    state = tmp_path / "state"
    with JournalHost(HOLDS, state, str(tmp_path)) as host:
        paths = held_by(host)
        reaper = reaper_of(host.process.pid)
        assert host.process.stdin is not None
        host.process.stdin.write("exec\n")
        host.process.stdin.flush()
        command = Path(f"/proc/{host.process.pid}/cmdline")
        wait_while(lambda: command.read_bytes() != b"sleep\x001000\x00")

        assert [each.state for each in swept(state)] == [HostState.ALIVE]
        if dies == "both":
            kill_all(reaper)
            assert [each.state for each in swept(state)] == [HostState.ALIVE]
        assert all(path.exists() for path in paths)

        host.kill()
        if dies == "both":
            (account,) = swept(state)
            assert [row.outcome for row in account.rows] == ["released"] * 2
        wait_until_gone(*paths)


def test_two_hosts_have_each_their_own(tmp_path: Path) -> None:
    """One dies: what the other has stays, though they have one user, one folder and one second."""
    state = tmp_path / "state"
    with (
        JournalHost(HOLDS, state, str(tmp_path)) as one,
        JournalHost(HOLDS, state, str(tmp_path)) as other,
    ):
        gone, kept = held_by(one), held_by(other)
        assert one.folder != other.folder
        one.kill()
        wait_until_gone(*gone)

        wait_while(lambda: one.state.joinpath(one_folder(one)).exists())
        assert HostState.ALIVE in [each.state for each in swept(state)]
        assert all(path.exists() for path in kept)
        other.kill()
        wait_until_gone(*kept)


def one_folder(host: JournalHost) -> str:
    """The folder of a host that has died, if it is there."""
    for each in host.state.glob("host-*"):
        try:
            if read_json(each / HEADER)["pid"] == host.process.pid:
                return each.name
        except OSError:
            continue
    return "none"


# -- namespaces --------------------------------------------------------------------

APART = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.mark.needs_root(reason="makes a pid namespace")
@pytest.mark.skipif(not seccomp.is_known(), reason="to refuse handles takes known numbers")
def test_a_host_of_another_pid_namespace_is_told_by_its_handle(tmp_path: Path) -> None:
    """Alive, or dead with all that was in there; who may open no handles leaves it alone."""
    state = tmp_path / "state"
    with JournalHost(HOLDS, state, str(tmp_path), by=APART) as host:
        paths = held_by(host)
        (folder,) = state.glob("host-*")
        if read_json(folder / HEADER)["handle"] is None:
            pytest.skip("processes have no handles before Linux 6.14")
        assert read_json(folder / HEADER)["pid_namespace"] != pid_namespace()
        assert [each.state for each in swept(state)] == [HostState.ALIVE]
        # With the first process of a namespace, the kernel kills all others.
        host.kill()

        def refused() -> None:
            seccomp.refuse_handles(number=errno.EPERM, to_get=False)
            (account,) = swept(state)
            assert account.state is HostState.UNKNOWN
            assert "another pid namespace" in account.text

        assert exit_code_of_fork(refused) == 0
        assert all(path.exists() for path in paths)

        wait_while(lambda: swept(state)[0].state is HostState.ALIVE)
        assert not any(path.exists() for path in paths)


@pytest.mark.needs_root(reason="makes a pid namespace")
@pytest.mark.parametrize("init", ["the host", "another"])
def test_the_processes_of_a_container_that_has_ended_are_gone(tmp_path: Path, init: str) -> None:
    """The kernel has killed them with its first process: the host, or one that has started it."""
    source = """
    manager = build(reaper=False)
    say(manager.spawn(["sleep", "1000"]).os_pid, os.getpid())
    sys.stdin.read()
    """
    state = tmp_path / "state"
    # A shell that is told of a second command does not execute the first one in its own place.
    by = (*APART, "sh", "-c", '"$@"; true', "sh") if init == "another" else APART
    with JournalHost(source, state, by=by) as host:
        _, os_pid = host.line().split()
        assert (os_pid == "1") == (init == "the host")
        (account,) = swept(state, "processes")
        if account.state is HostState.UNKNOWN:
            pytest.skip("processes have no handles before Linux 6.14")
        host.kill()

        wait_while(lambda: (found := swept(state, "processes")) and keeps_or_lives(found[0]))
        assert list(state.glob("host-*")) == []


@pytest.mark.needs_root(reason="makes pid namespaces")
def test_a_container_that_is_started_again_sweeps_after_the_one_before(tmp_path: Path) -> None:
    """Whose first process was the host; from a pid namespace of its own, in which all is new."""
    state = tmp_path / "state"
    with JournalHost(HOLDS, state, str(tmp_path), by=APART) as host:
        paths = held_by(host)
        (folder,) = state.glob("host-*")
        if read_json(folder / HEADER)["handle"] is None:
            pytest.skip("processes have no handles before Linux 6.14")
        host.kill()

        def sweeps() -> bool:
            done = subprocess.run(
                [*APART, sys.executable, "-m", "probate", "sweep", "--json"],
                env={**os.environ, "PROBATE_STATE": str(state)},
                capture_output=True,
                check=True,
            )
            (found,) = json.loads(done.stdout)["hosts"]
            return bool(found["state"] == "alive")

        wait_while(sweeps)
        assert not any(path.exists() for path in paths)


@pytest.mark.needs_root(reason="makes a pid namespace")
def test_a_host_beside_the_first_process_of_a_container_has_its_reaper(tmp_path: Path) -> None:
    """Which that adopts, and does not reap, so that it outlives the host and settles at once."""
    source = f"""
    if os.fork() == 0:
        import textwrap
        exec(textwrap.dedent({HOLDS.rpartition("if sys.stdin")[0]!r}))
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
    """
    with JournalHost(source, tmp_path / "state", str(tmp_path), by=APART) as host:
        wait_until_gone(*held_by(host))
        assert host.process.poll() is None


def keeps_or_lives(account: HostAccount) -> bool:
    """Whether it is to be looked at again."""
    assert account.kept == []
    return account.state is HostState.ALIVE


@pytest.mark.needs_root(reason="makes a pid namespace")
def test_a_host_beside_the_first_process_of_a_container_leaves_its_processes(
    tmp_path: Path,
) -> None:
    """To whoever sweeps in there: from outside, nobody can tell whether any lives; it is said."""
    source = """
    if os.fork() == 0:
        manager = build(reaper=False)
        say(manager.spawn(["sleep", "1000"]).os_pid)
        os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
    say("dead")
    sys.stdin.read()
    """
    state = tmp_path / "state"
    with JournalHost(source, state, by=APART) as host:
        host.line()
        assert host.line() == "dead"
        (account,) = swept(state, "processes")
        if account.state is HostState.UNKNOWN:
            pytest.skip("processes have no handles before Linux 6.14")
        (row,) = account.kept
        assert "another pid namespace" in row.text
        host.kill()

        wait_while(lambda: swept(state, "processes"))


@pytest.mark.needs_root(reason="makes an IPC namespace")
def test_what_a_host_had_in_another_ipc_namespace_is_kept_and_said(tmp_path: Path) -> None:
    """Nobody sees it from here: not even one of that key and id, which is somebody else's."""
    source = """
    manager = build(reaper=False)
    process = manager.create_process("worker")
    semaphore = manager.orchestrator["ipc"].manager.create_sysv_semaphore(process.pid)
    say(semaphore.key)
    sys.stdin.read()
    """
    state = tmp_path / "state"
    with JournalHost(source, state, by=("unshare", "--ipc", "--fork", "--kill-child")) as host:
        key = int(host.line())
        made = subprocess.run(
            ["ipcmk", "-S", "1"], check=True, capture_output=True, text=True
        ).stdout.split()[-1]
        try:
            host.kill()
            wait_while(lambda: swept(state, "ipc")[0].state is HostState.ALIVE)
            (account,) = swept(state, "ipc")
            (row,) = account.kept
            assert (row.outcome, f"{key:#x}" in row.description) == ("refused", True)
            assert "another IPC namespace" in row.text
        finally:
            subprocess.run(["ipcrm", "-s", made], check=True)


# -- reboots -----------------------------------------------------------------------


def test_after_a_reboot_only_what_is_on_a_disk_is_looked_for(tmp_path: Path) -> None:
    """By its handle; pids, keys and queues mean others by then."""
    path = tmp_path / "x"
    path.touch()
    namespace = str(Path("/proc/self/ns/ipc").stat().st_ino)
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        rows = [
            row_of("files", path_identity(str(path))),
            row_of("processes", leader_of(stranger.pid)),
            row_of("ipc", {"queue": "/x", "is_random": True, "ipc_namespace": namespace}),
            row_of("ipc", {"which": "sem", "id": 1, "key": 1, "ipc_namespace": namespace}),
        ]
        folder = dead_store(tmp_path / "state", rows)
        header = json.loads((folder / HEADER).read_text())
        (folder / HEADER).write_text(json.dumps(header | {"boot": "another", "pid": os.getpid()}))
        try:
            (account,) = swept(folder.parent, "files processes ipc")
            assert stranger.poll() is None
        finally:
            stranger.kill()

    outcomes = {(row.kind, str(row.outcome)) for row in account.rows}
    assert outcomes == {
        ("files", "released"),
        ("processes", "already gone"),
        ("ipc", "already gone"),
    }
    assert not path.exists()


def leader_of(os_pid: int) -> dict[str, Any]:
    """An identity that tells of a live process, as if it were the leader of a tree."""
    fields = Path(f"/proc/{os_pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "pid": os_pid,
        "start": int(fields[19]),
        "cgroup": None,
        "host_cgroup": None,
        "host_start": 0,
        "pid_namespace": pid_namespace(),
    }


# -- folders that all may write to -------------------------------------------------


@pytest.mark.needs_root(reason="acts as another user")
@pytest.mark.parametrize("act", ["rename", "unlink", "exchange", "into"])
def test_in_a_sticky_folder_nobody_else_moves_ours(act: str) -> None:
    """Neither the thing nor its quarantine, whoever tries (inode(7), "sticky bit")."""
    with new_folder("/tmp") as place:
        place.chmod(0o1777)
        (place / "x").touch()
        (place / "theirs").touch()
        os.chown(place / "theirs", STRANGER, STRANGER)
        folder = os.open(place, os.O_PATH)
        names = Quarantine(folder, ".probate-x")
        (place / ".probate-x").mkdir(0o700)

        def child() -> None:
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            for name in ("x", ".probate-x"):
                tries = {
                    "rename": partial(os.rename, place / name, place / "moved"),
                    "unlink": partial(os.unlink if name == "x" else os.rmdir, place / name),
                    "exchange": partial(os.rename, place / "theirs", place / name),
                    "into": partial(os.rename, place / "theirs", place / name / "x"),
                }
                with pytest.raises((PermissionError, IsADirectoryError, NotADirectoryError)):
                    tries[act]()

        assert exit_code_of_fork(child) == 0
        pin = os.open(place / "x", os.O_PATH)
        assert names.remove("x", pin, file_handle(pin), is_folder=False) == "released"
        names.close()
        os.close(pin)
        os.close(folder)
        assert [each.name for each in place.iterdir()] == ["theirs"]


#: Imports all but the standard library from a relative entry of sys.path; leaves where it is.
LEAVES = """
import os, sys
entry, state, path, then = sys.argv[1:]
sys.path[:] = [entry, *(each for each in sys.path if "packages" not in each and "lib" in each)]
import lmdb
from probate import ProcessManager
manager = ProcessManager.builder().with_journal(state).build()
files = manager.orchestrator["files"].manager
if then == "gone":
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")
else:
    os.chdir("/")
files.mkfifo(manager.create_process("worker").pid, path)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("entry", ["", "all"], ids=["current", "relative"])
@pytest.mark.parametrize("then", ["moves", "gone"])
def test_a_host_that_has_left_its_folder_is_settled(tmp_path: Path, entry: str, then: str) -> None:
    """Its reaper finds what it has imported from there, whatever is the current folder by now."""
    folder, path = tmp_path / "all", tmp_path / "fifo"
    folder.mkdir()
    for each in (Path(each) for each in sys.path):
        if each.name == "site-packages" or list(each.glob("probate*/__init__.py")):
            for found in each.iterdir():
                if not (folder / found.name).is_symlink():
                    (folder / found.name).symlink_to(found)
    ended = subprocess.run(
        [sys.executable, "-S", "-c", LEAVES, entry, tmp_path / "state", path, then],
        cwd=tmp_path if entry else folder,
        check=False,
        timeout=PATIENCE,
    )
    assert ended.returncode == -signal.SIGKILL
    wait_until_gone(path)
