"""This host as a child subreaper, for as long as there is a tree; and what a fork of it may do."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import processes_kernel as kernel
import pytest
from children import exit_code_of_fork
from processes_kernel import SLEEP, pids_in

from probate import OsProcess, ProcessManager
from probate.system import is_subreaper, set_subreaper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate_processes import ProcessTreeManager

    Pin = Callable[[int], OsProcess]

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    # From 3.12 on, os.fork() warns where there are several threads: these tests are about that.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]


@pytest.fixture
def subreaper_before() -> Iterator[None]:
    set_subreaper(True)
    yield
    set_subreaper(False)


def test_it_is_one_while_there_are_trees(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """From before the first is started until the last is gone, by whatever end."""
    owner = manager.create_process("owner")

    assert not is_subreaper()

    first = trees.spawn(owner.pid, SLEEP)
    second = trees.spawn(owner.pid, ["sh", "-c", "read line"], stdin=subprocess.PIPE)
    popen = subprocess.Popen(SLEEP)
    owner.adopt(popen)
    trees.kill(owner.pid, first)

    assert is_subreaper()

    trees.kill(owner.pid, popen)

    assert is_subreaper()

    assert second.stdin
    second.stdin.close()
    kernel.eventually(lambda: not is_subreaper(), "it is none any more")
    kernel.eventually(lambda: owner.pid not in trees.table, "the last has been settled")

    assert popen.wait(5) == -9


@pytest.mark.usefixtures("subreaper_before")
def test_it_stays_one_if_it_was_one_before(manager: ProcessManager) -> None:
    """Somebody else had a reason to make it one."""
    manager.spawn(SLEEP).terminate()

    assert is_subreaper()


@pytest.mark.usefixtures("subreaper_before")
def test_orphans_of_one_that_was_one_before_are_left_to_it(manager: ProcessManager) -> None:
    """Whoever made it one waits for them, and is to learn how they have ended."""
    process = manager.spawn(SLEEP)
    script = "(while kill -0 $$; do sleep 0.01; done; exit 7) >/dev/null 2>&1 & echo $!"
    shell = subprocess.run(["setsid", "sh", "-c", script], stdout=subprocess.PIPE, check=True)
    os_pid = int(shell.stdout)
    os.waitid(os.P_PID, os_pid, os.WEXITED | os.WNOWAIT)
    process.terminate()

    assert os.waitstatus_to_exitcode(os.waitpid(os_pid, 0)[1]) == 7


def test_it_is_one_as_long_as_any_manager_has_trees(
    manager: ProcessManager, tmp_path: Path, pin: Pin
) -> None:
    """The end of one manager's last tree leaves another's orphans with this host, and known."""
    with ProcessManager.builder().with_grace(0).build() as other:
        first = other.spawn(SLEEP)
        script = 'read line; (env -i setsid sh -c \'echo $$ > "$0"; exec sleep 300\' "$0" &) ; '
        command = ["sh", "-c", script + "exec sleep 300", str(tmp_path / "pid")]
        second = manager.spawn(command, stdin=subprocess.PIPE)
        first.terminate()

        assert is_subreaper()

        assert second.stdin
        second.stdin.close()
        orphan = pin(*pids_in(tmp_path / "pid"))
        second.terminate()

        assert kernel.is_gone(orphan)
        assert not is_subreaper()


def test_its_own_daemons_are_left_alone(manager: ProcessManager, tmp_path: Path, pin: Pin) -> None:
    """Orphans of the host itself come to it as well, meanwhile; no tree takes them."""
    worker = manager.spawn(SLEEP)
    script = '(setsid sh -c \'echo $$ > "$0"; exec sleep 300\' "$0" &)'
    subprocess.run(["sh", "-c", script, str(tmp_path / "pid")], check=True, timeout=10)
    daemon = pin(*pids_in(tmp_path / "pid"))
    kernel.eventually(lambda: kernel.parent(daemon.os_pid) == os.getpid(), "it came to us")
    worker.terminate()

    assert kernel.lives(daemon.os_pid)


def test_a_forked_child_owns_and_ends_nothing(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """It closes the manager, collects all it can, and ends: the parent's workers live."""
    owner = manager.create_process("owner")
    worker = manager.spawn(SLEEP)
    child = trees.spawn(owner.pid, SLEEP)
    popen = subprocess.Popen(SLEEP)
    owner.adopt(popen)
    assert worker.os_pid is not None
    os_pids = [worker.os_pid, child.os_pid, popen.pid]

    def in_child() -> None:
        assert owner.pid not in trees.table
        assert not is_subreaper()
        assert trees.quiesce(owner.pid) == []
        assert trees.table.cleanup(owner.pid).resources_freed == 0
        owner.terminate()
        manager.close()
        gc.collect()

    assert exit_code_of_fork(in_child) == 0
    assert [kernel.lives(os_pid) for os_pid in os_pids] == [True] * 3
    assert is_subreaper()

    assert owner.terminate().stats.by_type == {"processes": 2}
    assert popen.wait(5) in {-9, -15}


def test_a_forked_child_may_have_trees_of_its_own(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """It spawns, is told of deaths, and ends what is its own; the parent's worker lives."""
    worker = manager.spawn(SLEEP)

    def in_child() -> None:
        mine = manager.create_process("child's")
        own = trees.spawn(mine.pid, ["sh", "-c", "(setsid sleep 300 &); exec sleep 300"])
        short = trees.spawn(mine.pid, ["sh", "-c", "exit 3"])
        assert short.exited.result(10) == 3
        result = mine.terminate()
        assert result.is_success
        assert kernel.is_gone(own.os_pid)
        assert kernel.children() == set()
        assert not is_subreaper()
        manager.close()

    assert exit_code_of_fork(in_child) == 0
    assert kernel.lives(worker.os_pid or 0)


#: A host that forks, and whose child goes on and leaves in the ordinary way.
FORKING_HOST = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from probate import ProcessManager
with ProcessManager.builder().with_grace(0).build() as manager:
    worker = manager.spawn(["sleep", "300"])
    if os.fork() == 0:
        sys.exit(0)
    os.wait()
    print(os.path.exists(f"/proc/{worker.os_pid}/exe"))
    sys.stdout.flush()
"""


def test_a_forked_child_that_leaves_by_all_exits() -> None:
    """Through `with` and the interpreter's end; nothing on stderr, no warning."""
    command = [sys.executable, "-Xdev", "-c", FORKING_HOST]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert (done.stdout, done.returncode) == ("True\n", 0)
    assert "Traceback" not in done.stderr


def test_what_a_stranger_has_left_to_us_is_reaped_and_our_own_child_is_not(
    manager: ProcessManager,
) -> None:
    """A daemon of somebody's child comes to a subreaper, and nobody else will ever wait for it."""
    process = manager.spawn(["sleep", "1000"])
    # Not one of a tree: a child of this host's own, and its daemon, which leads no session.
    own = subprocess.Popen(["sh", "-c", "exit 7"])
    daemon = subprocess.run(
        ["setsid", "sh", "-c", "sleep 0 & echo $!"], stdout=subprocess.PIPE, check=True
    )
    os_pid = int(daemon.stdout)
    os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
    eventually_a_zombie_or_gone(os_pid)

    manager.terminate_process(process)

    assert kernel.is_gone(os_pid)
    assert own.wait() == 7


def eventually_a_zombie_or_gone(os_pid: int) -> None:
    """Wait until it has ended: a child that this host has not forked, of which it may be told."""
    with contextlib.suppress(ProcessLookupError), OsProcess.open(os_pid) as pinned:
        kernel.wait_for_exit(pinned)
