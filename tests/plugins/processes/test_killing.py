"""Killing a tree: what is done at the worst moment, and why each means is there."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from typing import TYPE_CHECKING

import processes_kernel as kernel
import psutil
import pytest
from processes_kernel import SLEEP, pids_in

from probate import OsProcess, ResourceLimits
from probate_processes.cgroup import Cgroup

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import ProcessManager
    from probate_processes import ProcessTreeManager

    Pin = Callable[[int], OsProcess]

pytestmark = pytest.mark.usefixtures("nothing_remains")

#: A child's child; writes its pid into $0.leader.
#: For a line from the FIFO, it forks once, into a session of its own, which writes its pid into $0.
STRANGER = """
sh -c 'trap "" TERM; exec 3<> "$0.fifo"; echo $$ > "$0.leader"; read line <&3
setsid sh -c "echo \\$\\$ > \\"\\$0\\"; exec sleep 300" "$0" & wait' "$0" &
wait; exec sleep 300
"""


def test_a_fork_between_the_last_look_and_the_kill(
    manager: ProcessManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Such a child escapes (actions/runner#4601): whoever is about to be killed cannot fork."""
    # A cgroup would kill it at one stroke.
    monkeypatch.setattr(Cgroup, "create", classmethod(lambda *_: None))
    pids = tmp_path / "pids"
    os.mkfifo(tmp_path / "pids.fifo")
    owner = manager.create_process("owner")
    with subprocess.Popen(["sh", "-c", STRANGER, str(pids)], start_new_session=True) as stranger:
        (leader,) = pids_in(tmp_path / "pids.leader")
        owner.adopt(psutil.Process(leader))
        asked: list[int] = []
        send_signal = OsProcess.send_signal

        def fork_first(process: OsProcess, number: int) -> bool:
            if number == signal.SIGKILL and process.os_pid == leader:
                asked.append(leader)
                (tmp_path / "pids.fifo").write_text("now\n")
                kernel.eventually(
                    lambda: kernel.state(leader) == "T" or (pids.exists() and pids.read_text()),
                    "it is frozen, or has forked",
                )
            return send_signal(process, number)

        monkeypatch.setattr(OsProcess, "send_signal", fork_first)
        result = owner.terminate()
        stranger.kill()

    assert result.is_success
    assert asked == [leader]
    assert not pids.exists()


def test_a_host_with_one_descriptor_can_still_kill_a_cgroup(
    manager: ProcessManager,
    trees: ProcessTreeManager,
    containment: str,
    tmp_path: Path,
    pin: Pin,
) -> None:
    """Too few to pin anybody by, and so to freeze or signal: the kernel kills all at one stroke."""
    if containment != "cgroup":
        pytest.skip("there is no cgroup to kill")
    # Watched as well: with nobody left to watch, the watch would give its descriptors back.
    # With a limit they are contained before they run, and no descriptor is opened for that later.
    limits = ResourceLimits(cpu=1000)
    other = manager.spawn(SLEEP, limits=limits)
    owner = manager.create_process("owner")
    script = '(setsid sh -c \'echo $$ >> "$0"; exec sleep 300\' "$0" &); exec sleep 300'
    argv = ["sh", "-c", script, str(tmp_path / "pids")]
    child = trees.spawn(owner.pid, argv, limits=limits)
    family = [pin(child.os_pid), pin(*pids_in(tmp_path / "pids"))]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (kernel.fds()[-1] + 3, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        os.close(taken.pop())
        stats = trees.table.cleanup(owner.pid)
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert [failure.outcome for failure in stats.errors] == ["busy"]

    for each in family:
        kernel.wait_for_exit(each)

    assert owner.terminate().is_success
    assert kernel.lives(other.os_pid or 0)
