"""When a process is over, and whose its exit status is."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import processes_kernel as kernel
import psutil
import pytest
from processes_kernel import SLEEP, pids_in
from processes_tracer import tracing

from probate import Outcome, ProcessState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import OsProcess, ProcessManager
    from probate_processes import ProcessTreeManager

    Pin = Callable[[int], OsProcess]

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not die is given up soon."""
    monkeypatch.setattr("probate_processes.killing._KILL_TIME", 0.1)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_status_is_left_to_the_object_that_its_user_holds(manager: ProcessManager) -> None:
    """Adopted by psutil, which knows only pids (undetected-chromedriver#1363).

    Popen, multiprocessing and asyncio find that their own process was killed, not that somebody
    else has waited for it.
    """
    owner = manager.create_process("owner")
    popen = subprocess.Popen(SLEEP)
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,))
    worker.start()

    async def run() -> int:
        started = await asyncio.create_subprocess_exec(*SLEEP)
        for os_pid in (popen.pid, worker.pid, started.pid):
            owner.adopt(psutil.Process(os_pid))
        result = await owner.terminate_async()
        assert result.stats.by_type == {"processes": 3}
        return await asyncio.wait_for(started.wait(), 15)

    code = asyncio.run(run())
    worker.join(15)

    assert (popen.wait(15), worker.exitcode, code) == (-9, -9, -9)
    assert not worker.is_alive()
    worker.close()


def test_of_a_child_that_died_by_itself_too(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """It is owned no more, and its status is read by whoever reads it first."""
    owner = manager.create_process("owner")
    popen = subprocess.Popen(["sh", "-c", "read line; exit 3"], stdin=subprocess.PIPE)
    owner.adopt(psutil.Process(popen.pid))
    popen.communicate(b"\n")
    kernel.eventually(lambda: owner.pid not in trees.table, "it dropped out")

    assert popen.returncode == 3


#: A host that ends what belongs to a loop that is closed. Run apart: asyncio's own descriptor for
#: it stays open until the end.
LOOP_IS_CLOSED = """
import asyncio, os, time
from probate import ProcessManager

with ProcessManager.builder().with_grace(0).build() as manager:
    owner = manager.create_process("owner")

    async def run():
        started = await asyncio.create_subprocess_exec("sleep", "300")
        owner.adopt(started)
        return started

    started = asyncio.run(run())
    result = owner.terminate()
    over = time.monotonic() + 15
    while os.path.exists(f"/proc/{started.pid}") and time.monotonic() < over:
        time.sleep(0.01)
    print(result.is_success, os.path.exists(f"/proc/{started.pid}"), started.returncode)
"""


def test_an_asyncio_subprocess_whose_loop_is_closed() -> None:
    """Nobody waits for it there: it is reaped, and its object knows how it ended.

    Where a thread waits for it (Python 3.11), that has reaped it, and tells nobody.
    """
    argv = [sys.executable, "-W", "ignore", "-c", LOOP_IS_CLOSED]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    told = {"-9"} if sys.version_info >= (3, 12) else {"-9", "None"}

    assert said in {f"True False {code}\n" for code in told}


# -- traced from outside -------------------------------------------------------


def test_one_that_is_traced_is_over_when_its_tracer_has_waited_for_it(
    manager: ProcessManager,
) -> None:
    """As by strace or gdb with -p: until then the kernel tells us nothing, and we say nothing.

    Then its returncode is there, and no zombie.
    """
    process = manager.spawn(SLEEP)
    assert process.os_pid is not None
    with tracing(process.os_pid) as tracer:
        os.kill(process.os_pid, signal.SIGKILL)
        kernel.eventually(lambda: kernel.state(process.os_pid or 0) == "Z", "it has exited")
        with pytest.raises(TimeoutError):
            manager.wait(process.pid, 0.2)
        assert (process.state, process.returncode) == (ProcessState.RUNNING, None)

        tracer.wait()
        result = manager.wait(process.pid, 15)

    assert result.is_success
    assert process.returncode == -9
    assert kernel.is_gone(process.os_pid)


@pytest.mark.parametrize("is_leader", [True, False], ids=["leader", "orphan"])
def test_one_that_is_traced_is_killed_and_reaped(
    manager: ProcessManager, tmp_path: Path, is_leader: bool
) -> None:
    """The tracer that waits at once, as strace does, keeps nobody from being gone."""
    pids = tmp_path / "pids"
    script = '(setsid sh -c \'echo $$ >> "$0"; exec sleep 300\' "$0" &); exec sleep 300'
    process = manager.spawn(["sh", "-c", script, str(pids)])
    (orphan,) = pids_in(pids)
    traced = process.os_pid if is_leader else orphan
    with tracing(traced) as tracer, kernel.in_thread(tracer.wait):
        result = process.terminate()

    assert result.is_success
    assert kernel.none_of([orphan, process.os_pid or 0])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("keeps", [False, True], ids=["not reaped", "not ended"])
@pytest.mark.parametrize("is_leader", [True, False], ids=["leader", "orphan"])
def test_one_that_does_not_end_when_it_is_killed(
    manager: ProcessManager,
    trees: ProcessTreeManager,
    tmp_path: Path,
    keeps: bool,
    is_leader: bool,
) -> None:
    """A tracer keeps it, or it sleeps uninterruptibly: the account names it, and it stays owned.

    When it ends after all, nobody asking, it is reaped and dropped, with all that was its tree's.
    """
    pids = tmp_path / "pids"
    script = '(setsid sh -c \'echo $$ >> "$0"; exec sleep 300\' "$0" &); exec sleep 300'
    owner = manager.create_process("owner")
    child = trees.spawn(owner.pid, ["sh", "-c", script, str(pids)])
    (orphan,) = pids_in(pids)
    kept = child.os_pid if is_leader else orphan
    with tracing(kept, keeps=keeps) as tracer:
        result = owner.terminate()

        assert [error.outcome for error in result.errors] == [Outcome.TIMEOUT]
        why = f"not gone yet: {kept}" if keeps else f"nor detaches: {kept} by {tracer.os_pid}"
        assert why in result.errors[0].message
        assert result.stats.resources_freed == 0
        assert owner.pid in trees.table
        assert child.exited.done() == (not is_leader)
        # It is looked at again and again, more and more seldom.
        (tree,) = trees.table.resources(owner.pid)
        kernel.eventually(lambda: tree.pause > 0.1, "several looks")

        tracer.go()
        kernel.eventually(lambda: owner.pid not in trees.table, "it dropped out")

    assert child.exited.result(15) == -9
    assert kernel.none_of([child.os_pid, orphan])
    assert kernel.cgroups() == set()


def test_a_dead_orphan_that_is_traced_is_reaped_with_its_tree(
    manager: ProcessManager, trees: ProcessTreeManager, tmp_path: Path, pin: Pin
) -> None:
    """Its leader has ended by itself; the tree has not, as long as the kernel keeps one of it."""
    pids = tmp_path / "pids"
    script = '(setsid sh -c \'echo $$ >> "$0"; exec sleep 300\' "$0" &); read line'
    owner = manager.create_process("owner")
    child = trees.spawn(owner.pid, ["sh", "-c", script, str(pids)], stdin=subprocess.PIPE)
    orphan = pin(*pids_in(pids))
    with tracing(orphan.os_pid) as tracer:
        orphan.send_signal(signal.SIGKILL)
        kernel.wait_for_exit(orphan)
        assert child.stdin
        child.stdin.close()
        child.exited.result(15)
        assert owner.pid in trees.table

        tracer.wait()
        assert owner.terminate().is_success

    assert kernel.is_gone(orphan)


# -- a program whose main thread has ended ---------------------------------------

#: A thread lives on without the main one, which looks like a zombie (pthread_exit(3)).
MAIN_THREAD_ENDS = """
import ctypes, os, signal, sys, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=time.sleep, args=(300,)).start()
with open(sys.argv[1], "w") as file:
    print(os.getpid(), file=file)
ctypes.CDLL(None).pthread_exit(None)
"""


def main_thread_ends(pids: Path) -> list[str]:
    return [sys.executable, "-SEc", MAIN_THREAD_ENDS, str(pids)]


def test_a_program_whose_main_thread_has_ended_is_alive(
    manager: ProcessManager, trees: ProcessTreeManager, tmp_path: Path
) -> None:
    """It is counted with what it uses, adopted by whatever object, and killed."""
    owner = manager.create_process("owner")
    child = trees.spawn(owner.pid, main_thread_ends(tmp_path / "spawned"))
    popen = subprocess.Popen(main_thread_ends(tmp_path / "adopted"))
    started = [*pids_in(tmp_path / "spawned"), *pids_in(tmp_path / "adopted")]
    kernel.eventually(lambda: {kernel.state(each) for each in started} == {"Z"}, "they ended")
    owner.adopt(adopted := psutil.Process(popen.pid))

    assert trees.members(owner.pid, child) == [child.os_pid]
    assert trees.members(owner.pid, adopted) == [popen.pid]
    usage: Any = owner.usage()["processes"].os
    assert usage.processes == 2
    assert usage.threads >= 2
    assert usage.fds >= 6
    assert usage.rss > 1 << 20

    result = owner.terminate(0.2)
    assert result.stats.by_type == {"processes": 2}
    assert (child.returncode, popen.wait(15)) == (-9, -9)


# -- what is left ----------------------------------------------------------------


def test_a_leak_names_the_living(manager: ProcessManager, tmp_path: Path) -> None:
    """Not the launcher that has gone; what it was is said as well."""
    script = """(setsid sh -c \'echo $$ >> "$0"; exec sleep 300\' "$0" &);
    while [ ! -s "$0" ]; do sleep 0.01; done; exit 0"""
    process = manager.spawn(["sh", "-c", script, str(tmp_path / "pids")])
    launcher = process.os_pid
    result = manager.wait(process.pid, 15)

    (leak,) = result.leaks
    (orphan,) = pids_in(tmp_path / "pids")
    assert leak.resource.description.startswith(f"OS process {orphan} ")
    assert f", left by {launcher} sh -c" in leak.resource.description
