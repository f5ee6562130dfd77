"""A shell that does all it can to survive, and strangers that must not be touched."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import processes_kernel as kernel
import pytest
from processes_kernel import MARK, SLEEP

from probate import ProcessManager, ResourceOrchestrator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("nothing_remains")

GRACE = 0.2

#: All hundred rounds, instead of as many as an everyday run has time for.
IS_CHAOS = bool(os.environ.get("PROBATE_CHAOS"))
ROUNDS = 100 if IS_CHAOS else 6
SECONDS = 600.0 if IS_CHAOS else 30.0
#: Seconds beyond the grace. Where others take the processors, everything takes as long.
PATIENCE = 1.0 if IS_CHAOS else 20.0

#: Fifty processes, and one that forks as fast as it can: at most 3000 times, for 0.2 s each. It
#: says so in file $0 when all are started.
HOSTILE = r"""
i=0
while [ $i -lt 10 ]; do
 sleep 300 &
 setsid sleep 300 &
 ( setsid sh -c 'trap "" TERM; sleep 300; sleep 300' & ) &
 sh -c 'kill -STOP $$; sleep 300' &
 sh -c 'trap "" TERM HUP INT; while :; do sleep 0.05; done' &
 i=$((i+1))
done
sh -c 'trap "" TERM; i=0; while [ $i -lt 3000 ]; do (setsid sleep 0.2 &) ; i=$((i+1)); done' &
echo started > "$0"
wait
sleep 300
"""


@pytest.fixture
def hostile_manager(orchestrator: ResourceOrchestrator) -> Iterator[ProcessManager]:
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_grace(GRACE).with_deadline(GRACE + PATIENCE).build() as manager:
        yield manager


@pytest.fixture
def strangers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Of the same user: in a session of its own; a child like any; with another tree's marker."""
    env = {name: value for name, value in os.environ.items() if name != MARK}
    started = [
        subprocess.Popen(SLEEP, start_new_session=True, env=env),
        subprocess.Popen(SLEEP, env=env),
        subprocess.Popen(SLEEP, env={**env, "PROBATE_TREE": f"{os.getpid()}-1-1:1-2-3"}),
    ]
    yield started
    for stranger in started:
        stranger.kill()
        stranger.wait()


@pytest.mark.timeout(660)
def test_a_hostile_shell_is_gone_and_no_stranger_touched(
    hostile_manager: ProcessManager,
    strangers: list[subprocess.Popen[bytes]],
    mark: str,
    tmp_path: Path,
) -> None:
    """Setsid, double fork, SIGSTOP, ignored SIGTERM, forking: nothing of it a second later."""
    before = kernel.children()
    longest = 0.0
    began = time.monotonic()
    rounds = 0
    while rounds < ROUNDS and time.monotonic() - began < SECONDS:
        rounds += 1
        started = tmp_path / f"started{rounds}"
        process = hostile_manager.spawn(["sh", "-c", HOSTILE, str(started)])
        kernel.words(started)
        # Some may be in the middle of execve(2), and have no environment to be seen.
        kernel.eventually(lambda: len(kernel.marked(mark)) >= 35, "they are there")
        since = time.monotonic()
        result = process.terminate()
        longest = max(longest, time.monotonic() - since)

        assert result.errors == ()
        assert result.stats.by_type == {"processes": 1}
        assert kernel.marked(mark) == set()
        assert kernel.children() == before
    # For those who measure: `pytest -s`.
    sys.stdout.write(
        f"{rounds} rounds in {time.monotonic() - began:.1f} s, longest {longest:.2f} s; "
    )

    assert longest < GRACE + PATIENCE
    assert [stranger.poll() for stranger in strangers] == [None] * 3
    assert "T" not in {kernel.state(stranger.pid) for stranger in strangers}


@pytest.mark.timeout(120)
def test_a_hostile_shell_that_is_killed_from_outside(
    hostile_manager: ProcessManager,
    strangers: list[subprocess.Popen[bytes]],
    mark: str,
    tmp_path: Path,
) -> None:
    """Its family is settled unasked."""
    before = kernel.children()
    for number in range(5 if IS_CHAOS else 3):
        started = tmp_path / f"started{number}"
        process = hostile_manager.spawn(["sh", "-c", HOSTILE, str(started)])
        kernel.words(started)
        process.send_signal(9)
        result = hostile_manager.wait(process.pid, 15)

        assert result.errors == ()
        assert process.returncode == -9
        assert kernel.marked(mark) == set()
        assert kernel.children() == before

    assert [stranger.poll() for stranger in strangers] == [None] * 3


@pytest.mark.parametrize("count", [150])
def test_a_tree_larger_than_the_descriptors_of_this_host(
    manager: ProcessManager, mark: str, tmp_path: Path, count: int
) -> None:
    """Each is pinned by a descriptor: where these are short, some go first and then the others."""
    script = f'i=0; while [ $i -lt {count} ]; do sleep 300 & i=$((i+1)); done; echo > "$0"; wait'
    process = manager.spawn(["sh", "-c", f"trap '' TERM; {script}", str(tmp_path / "all")])
    kernel.eventually((tmp_path / "all").exists, "all are started")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (kernel.fds()[-1] + 20, hard))
    try:
        result = process.terminate()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert result.errors == ()
    assert kernel.marked(mark) == set()


def test_a_host_without_descriptors_keeps_what_it_cannot_end(manager: ProcessManager) -> None:
    """It says so, and owns the process still; later it can be ended."""
    owner = manager.create_process("owner")
    trees = manager.orchestrator["processes"].manager
    child = trees.spawn(owner.pid, ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        stats = trees.table.cleanup(owner.pid)
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert [failure.outcome for failure in stats.errors] == ["busy"]
    assert owner.pid in trees.table

    result = owner.terminate()

    assert result.is_success
    assert kernel.is_gone(child.os_pid)


#: A mount point's name may have any bytes: what ends a line or a word for others, and no UTF-8.
AMONG_ODD_MOUNTS = """
import os, sys
from mount_namespace import enter_mount_namespace, mount_tmpfs
from probate import ProcessManager
enter_mount_namespace()
for name in (b"\\xff", b"\\r\\x0b", "\\x85 - cgroup2 x".encode()):
    folder = os.path.join(os.fsencode(sys.argv[1]), name)
    os.mkdir(folder)
    mount_tmpfs(os.fsdecode(folder), "size=64k")
with ProcessManager.builder().with_grace(0).build() as manager:
    process = manager.spawn(["sleep", "1000"])
    sys.exit(not process.terminate().is_success)
"""


@pytest.mark.needs_root(reason="for a mount namespace")
def test_mounts_with_odd_names_disturb_nobody(tmp_path: Path) -> None:
    """Whoever has a file system in user space may choose one, and no tree could be started."""
    ran = subprocess.run(
        [sys.executable, "-c", AMONG_ODD_MOUNTS, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
