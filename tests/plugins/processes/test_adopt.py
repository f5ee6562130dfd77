"""OS processes that were started elsewhere: owned, with their descendants, or left as they are."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shlex
import signal
import subprocess
from multiprocessing import forkserver, resource_tracker
from typing import TYPE_CHECKING, Any

import processes_kernel as kernel
import psutil
import pytest
from processes_kernel import SLEEP, pids_in

from probate import (
    AlreadyOwnedError,
    OsProcess,
    ProcessManager,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
    UnadoptableError,
)
from probate.system import is_subreaper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate_processes import ProcessTreeManager

    Pin = Callable[[int], OsProcess]

pytestmark = pytest.mark.usefixtures("nothing_remains")

#: When it has been adopted, a child, and a grandchild that is nobody's child by then. They write
#: their pids into $1. What becomes an orphan before that cannot be told from a stranger.
FAMILY = """
while [ ! -e "$1.go" ]; do sleep 0.005; done
(setsid sh -c 'echo $$ >> "$0"; exec sleep 300' "$1" &)
sh -c 'echo $$ >> "$0"; exec sleep 300' "$1" &
exec sleep 300
"""


def family(pids: Path) -> list[str]:
    return ["sh", "-c", FAMILY, "sh", str(pids)]


def begin(pids: Path) -> list[int]:
    """Let a family, which has been adopted, begin; the pids of its descendants."""
    pids.with_name(f"{pids.name}.go").touch()
    return pids_in(pids, 2)


@pytest.mark.parametrize("make", [subprocess.Popen, psutil.Popen])
@pytest.mark.parametrize("own_session", [False, True])
def test_a_popen_is_killed_with_its_descendants(
    manager: ProcessManager, tmp_path: Path, make: Any, own_session: bool
) -> None:
    """Its user's own object knows afterwards how it ended."""
    process = manager.create_process("owner")
    popen = make(family(tmp_path / "pids"), start_new_session=own_session)
    process.adopt(popen)
    members = [popen.pid, *begin(tmp_path / "pids")]
    # Not to be ended by the polite signal.
    os.kill(popen.pid, signal.SIGSTOP)
    result = process.terminate()

    assert result.is_success
    assert result.stats.by_type == {"processes": 1}
    assert kernel.none_of(members)
    assert popen.wait(5) in {-signal.SIGKILL, -signal.SIGTERM}


def test_an_adopted_process_that_ignores_sigterm(manager: ProcessManager, tmp_path: Path) -> None:
    """The code that its user sees is -9."""
    process = manager.create_process("owner")
    script = "trap '' TERM; echo $$ >> \"$0\"; while :; do sleep 0.05; done"
    with subprocess.Popen(["sh", "-c", script, str(tmp_path / "pids")]) as popen:
        process.adopt(popen)
        pids_in(tmp_path / "pids")
        process.terminate()

        assert popen.wait(5) == -9


def test_descendants_from_before_the_adoption_are_its_too(
    manager: ProcessManager, tmp_path: Path
) -> None:
    """What it has started in its session already is found."""
    script = 'sh -c \'echo $$ >> "$0"; exec sleep 300\' "$1" & exec sleep 300'
    command = ["sh", "-c", script, "sh", str(tmp_path / "pids")]
    with subprocess.Popen(command, start_new_session=True) as popen:
        child = pids_in(tmp_path / "pids")
        process = manager.create_process("owner")
        process.adopt(popen)
        process.terminate()

        assert kernel.none_of([popen.pid, *child])


#: Starts a child, whose pid is in $0.child. As soon as $0.go is there, that one leaves an orphan
#: in a session of its own, with nothing in its environment, and ends.
DAEMONISING_CHILD = """
sh -c 'echo $$ > "$0.child"; while [ ! -e "$0.go" ]; do sleep 0.005; done
(env -i setsid sh -c "echo \\$\\$ > \\"\\$0\\"; exec sleep 300" "$0" &)' "$0" & exec sleep 300
"""


def test_the_orphans_of_descendants_from_before_the_adoption(
    manager: ProcessManager, tmp_path: Path, pin: Pin
) -> None:
    """Whoever is there at the adoption is tagged, and so is what it forks from then on."""
    pids = tmp_path / "pids"
    process = manager.create_process("owner")
    with subprocess.Popen(["sh", "-c", DAEMONISING_CHILD, str(pids)]) as popen:
        child = pin(*pids_in(tmp_path / "pids.child"))
        process.adopt(popen)
        (tmp_path / "pids.go").touch()
        kernel.wait_for_exit(child)
        orphan = pin(*pids_in(pids))
        kernel.eventually(lambda: kernel.parent(orphan.os_pid) == os.getpid(), "it came to us")
        process.terminate()

        assert orphan.has_exited()


def test_a_psutil_process_that_is_a_child(manager: ProcessManager, tmp_path: Path) -> None:
    """By whatever object it was started: its status is left for this one."""
    process = manager.create_process("owner")
    os_pid = os.posix_spawnp("sh", family(tmp_path / "pids"), os.environ)
    adopted = psutil.Process(os_pid)
    process.adopt(adopted)
    members = [os_pid, *begin(tmp_path / "pids")]
    os.kill(os_pid, signal.SIGSTOP)
    result = process.terminate()

    assert result.is_success
    assert not kernel.lives(os_pid)
    assert adopted.wait(0) in {-signal.SIGKILL, -signal.SIGTERM}
    assert kernel.none_of(members)


#: As soon as $0.go is there, an orphan is left, whose pid is in $0, and nothing in its environment.
DAEMONISING = """while [ ! -e "$0.go" ]; do sleep 0.005; done
(env -i setsid sh -c "echo \\$\\$ > \\"\\$0\\"; exec sleep 300" "$0" &); exec sleep 300"""


def test_a_grandchild_by_psutil(manager: ProcessManager, tmp_path: Path, pin: Pin) -> None:
    """jupyter_client#104: it was not marked, as no child of this host's, and its daemons lived on.

    They come to this host when it is killed.
    """
    pids = tmp_path / "pids"
    process = manager.create_process("owner")
    script = 'sh -c "$1" "$0" & echo $! > "$0.leader"; wait'
    with subprocess.Popen(["sh", "-c", script, str(pids), DAEMONISING]) as between:
        (leader,) = pids_in(tmp_path / "pids.leader")
        process.adopt(psutil.Process(leader))
        (tmp_path / "pids.go").touch()
        orphan = pin(*pids_in(pids))
        os.kill(leader, signal.SIGKILL)
        assert between.wait(10) == 0
        result = process.terminate()

        assert result.is_success
        assert orphan.has_exited()


def test_a_psutil_process_that_is_no_child(manager: ProcessManager, tmp_path: Path) -> None:
    """It is killed with its descendants, and its parent, a stranger, sees how."""
    process = manager.create_process("owner")
    script = 'sh -c "$2" sh "$1" & echo $! > "$0"; wait $!; echo "ended $?" >> "$0"; exec sleep 300'
    pids = tmp_path / "pids"
    # No orphan here: those of a stranger's tree go to init, or whoever is their subreaper.
    inner = 'sh -c \'echo $$ >> "$0"; exec sleep 300\' "$1" & exec sleep 300'
    command = ["sh", "-c", script, str(tmp_path / "leader"), str(pids), inner]
    with subprocess.Popen(command, start_new_session=True) as stranger:
        (leader,) = pids_in(tmp_path / "leader")
        (child,) = pids_in(pids)
        process.adopt(psutil.Process(leader))
        result = process.terminate()
        # Its own parent reaps it.
        words = kernel.words(tmp_path / "leader", 2)

        assert result.is_success
        assert words[2:] in (["143"], ["137"]) or words[1:2] == ["ended"]
        assert not kernel.lives(child)
        assert kernel.lives(stranger.pid)

        stranger.kill()


def test_a_strangers_child_that_stays_when_asked(manager: ProcessManager, tmp_path: Path) -> None:
    """It was known when its parent died of the polite signal: it is killed all the same."""
    stay = "trap '' TERM; echo $$ > \"$0\"; while :; do sleep 0.05; done"
    inner = f'sh -c {shlex.quote(stay)} "$0" & wait; exec sleep 300'
    script = f'sh -c {shlex.quote(inner)} "$0" & echo $! > "$0.leader"; wait $!; exec sleep 300'
    with subprocess.Popen(["sh", "-c", script, str(tmp_path / "pid")]) as stranger:
        (leader,) = pids_in(tmp_path / "pid.leader")
        (child,) = pids_in(tmp_path / "pid")
        process = manager.create_process("owner")
        process.adopt(psutil.Process(leader))
        result = process.terminate(0.2)

        assert result.is_success
        assert not kernel.lives(child)
        assert kernel.lives(stranger.pid)

        stranger.kill()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_multiprocessing_process(orchestrator: Any, tmp_path: Path, method: str) -> None:
    """Killed with all descendants; its exit code is right.

    unsloth#6784: also a worker of the fork server, which is not this host's own child.
    """
    context: Any = multiprocessing.get_context(method)
    had_tracker = resource_tracker._resource_tracker._fd is not None  # type: ignore[attr-defined]  # as below
    worker = context.Process(target=os.execvp, args=("sh", family(tmp_path / "pids")))
    with pytest.raises(ValueError, match="not started"):
        orchestrator["processes"].manager.adopt(7, worker)
    worker.start()
    try:
        orchestrator.adopt(7, worker)
        members = [worker.pid, *begin(tmp_path / "pids")]
        os.kill(worker.pid, signal.SIGSTOP)
        result = orchestrator.cleanup_process(7, grace=0)
        worker.join(5)

        assert result.is_success
        assert kernel.none_of(members)
        assert worker.exitcode in {-9, -15}
    finally:
        worker.close()
        if method == "forkserver":
            forkserver._forkserver._stop()  # type: ignore[attr-defined]  # as below
        if not had_tracker:
            # An OS process and a pipe, which this test has brought about.
            resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]  # there is no other way


async def adopt_and_end(manager: ProcessManager, pids: Path) -> tuple[int | None, list[int]]:
    """An asyncio subprocess, adopted and ended; its return code, and who was in its tree."""
    process = manager.create_process("owner")
    worker = await asyncio.create_subprocess_exec(*family(pids))
    process.adopt(worker)
    members = [worker.pid, *await asyncio.to_thread(begin, pids)]
    os.kill(worker.pid, signal.SIGSTOP)
    result = await process.terminate_async()
    code = await asyncio.wait_for(worker.wait(), 10)

    assert result.is_success
    assert result.stats.by_type == {"processes": 1}
    return code, members


def test_an_asyncio_subprocess(manager: ProcessManager, tmp_path: Path) -> None:
    """Killed with all descendants; whoever awaits it gets its return code, with no warning."""
    code, members = asyncio.run(adopt_and_end(manager, tmp_path / "pids"))

    assert code in {-9, -15}
    kernel.eventually(lambda: kernel.none_of(members), "the child watcher has reaped it")


def test_what_has_ended_is_refused(manager: ProcessManager, trees: ProcessTreeManager) -> None:
    """Waited for, or a zombie yet: there is nothing to own."""
    process = manager.create_process("owner")
    popen = subprocess.Popen(["true"])
    seen = psutil.Process(popen.pid)
    with OsProcess.open(popen.pid) as pinned:
        kernel.wait_for_exit(pinned)
    for each in (seen, popen, seen):
        with pytest.raises(ValueError, match="has ended"):
            trees.adopt(process.pid, each)

    assert popen.wait(5) == 0
    assert process.pid not in trees.table


def test_this_host_and_its_ancestors_are_refused(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """Whoever owned them would kill itself."""
    process = manager.create_process("owner")
    for os_pid in (os.getpid(), os.getppid(), 1):
        with pytest.raises(ValueError, match="ancestor"):
            trees.adopt(process.pid, psutil.Process(os_pid))
    with pytest.raises(UnadoptableError) as raised:
        process.adopt(psutil.Process(os.getpid()))

    assert isinstance(raised.value.__cause__, ExceptionGroup)
    assert "this host or an ancestor" in str(raised.value.__cause__.exceptions[0])
    assert not is_subreaper()


def test_other_things_are_not_taken(manager: ProcessManager) -> None:
    """A bare pid may be anybody's, and says nothing."""
    with pytest.raises(UnadoptableError):
        manager.create_process("owner").adopt(os.getpid())


def test_one_process_by_two_objects_is_refused(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """It has one owner, by whatever object it is known; the refusal changes nothing."""
    process, other = manager.create_process("owner"), manager.create_process("other")
    child = trees.spawn(process.pid, SLEEP)
    with pytest.raises(ValueError, match=f"{child.os_pid} is owned already"):
        trees.adopt(other.pid, psutil.Process(child.os_pid))
    other.terminate()

    assert kernel.lives(child.os_pid)


def test_adopted_twice(
    manager: ProcessManager, trees: ProcessTreeManager, tmp_path: Path, pin: Pin
) -> None:
    """AlreadyOwnedError names the owner; orphans from after the refusal are still the tree's."""
    process, other = manager.create_process("owner"), manager.create_process("other")
    pids = tmp_path / "pids"
    daemon = '(env -i setsid sh -c \'echo $$ >> "$0"; exec sleep 300\' "$0" &)'
    command = ["sh", "-c", f"read line; {daemon}; exec sleep 300", str(pids)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as popen:
        process.adopt(popen)
        for again in (process, other):
            with pytest.raises(AlreadyOwnedError, match=f"by process {process.pid} already"):
                again.adopt(popen)
        with pytest.raises(ValueError, match="owned already"):
            trees.adopt(other.pid, psutil.Process(popen.pid))
        assert popen.stdin
        popen.stdin.close()
        orphan = pin(*pids_in(pids))
        result = process.terminate()

        assert result.is_success
        assert kernel.none_of([popen.pid, orphan])


def test_a_popen_that_ends_by_itself_is_owned_no_more(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """The kernel tells; nobody has to ask, and its status is left to its user."""
    process = manager.create_process("owner")
    popen = subprocess.Popen(["sh", "-c", "read line; exit 3"], stdin=subprocess.PIPE)
    process.adopt(popen)

    assert process.pid in trees.table

    popen.communicate()
    kernel.eventually(lambda: process.pid not in trees.table, "it dropped out")

    assert popen.wait(5) == 3
    assert not is_subreaper()
    assert kernel.cgroups() == set()
    assert process.terminate().stats.resources_freed == 0


def cgroup_of(os_pid: int) -> str:
    with open(f"/proc/{os_pid}/cgroup") as file:
        return file.read()


def limits_of(os_pid: int) -> str:
    with open(f"/proc/{os_pid}/limits") as file:
        return file.read()


def test_a_refused_adoption_leaves_it_alone(manager: ProcessManager) -> None:
    """Refused by a limit, or an owner that has ended: it runs as before, and is nobody's."""
    limited = manager.create_process("limited", limits=ResourceLimits(max_count=0))
    ended = manager.create_process("ended")
    ended.terminate()
    with subprocess.Popen(SLEEP) as popen:
        before = (cgroup_of(popen.pid), limits_of(popen.pid))
        with pytest.raises(ResourceLimitExceeded):
            limited.adopt(popen)
        with pytest.raises(ProcessTerminatedError):
            ended.adopt(popen)
        limited.terminate()

        assert (cgroup_of(popen.pid), limits_of(popen.pid)) == before
        assert kernel.cgroups() == set()
        assert not is_subreaper()
        assert kernel.lives(popen.pid)

        popen.kill()


def test_adoption_that_loses_against_the_owners_end_leaves_it_alone(
    manager: ProcessManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner ends while the process is being pinned: it runs on, in no cgroup of ours."""
    process = manager.create_process("owner")
    open_process = OsProcess.open
    seen: list[int] = []

    def open_late(os_pid: int) -> OsProcess:
        # Once: the end of the owner comes in between.
        if not seen:
            seen.append(os_pid)
            process.terminate()
        return open_process(os_pid)

    with subprocess.Popen(SLEEP) as popen:
        before = cgroup_of(popen.pid)
        monkeypatch.setattr(OsProcess, "open", open_late)
        with pytest.raises(ProcessTerminatedError):
            process.adopt(popen)
        monkeypatch.undo()

        assert seen == [popen.pid]
        assert kernel.lives(popen.pid)
        assert cgroup_of(popen.pid) == before
        assert kernel.cgroups() == set()
        assert not is_subreaper()

        popen.kill()


def test_usage_names_what_was_adopted(manager: ProcessManager) -> None:
    """By its pid, and what stands for it."""
    process = manager.create_process("owner")
    popen = subprocess.Popen(SLEEP)
    process.adopt(popen)
    usage = process.usage()["processes"]
    process.terminate()

    assert [info.description for info in usage.resources] == [f"OS process {popen.pid} Popen"]
    assert usage.os is not None
    assert usage.os.processes == 1
