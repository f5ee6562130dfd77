"""The thread that starts programs: what it hands on to them, and to nobody else."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import early_daemons as early
import processes_kernel as kernel
import pytest
from children import exit_code_of_fork
from processes_kernel import SLEEP
from strangers import Strangers
from threads import in_thread

from probate import OsProcess, ResourceLimits
from probate_processes.launcher import launchers
from probate_processes.marks import UNWORN
from probate_processes.threadmarks import Worn

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import Process, ProcessManager
    from probate_processes import ProcessTreeManager

    Pin = Callable[[int], OsProcess]

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    # From 3.12 on, os.fork() warns where there are several threads: these tests are about that.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

_CLONE_FS = 0x200
_CLONE_NEWUTS = 0x04000000


def status(tid: int, *names: str) -> list[str]:
    """Lines of /proc/TID/status, of a process or a thread of this one."""
    lines = Path(f"/proc/{tid}/status").read_text().splitlines()
    return [line for line in lines if line.split(":")[0] in names]


def unshare(flags: int) -> None:
    assert ctypes.CDLL(None, use_errno=True).unshare(flags) == 0


def change_folder() -> None:
    unshare(_CLONE_FS)
    os.chdir("/proc")


#: What a thread changes for itself, and how the kernel shows that of a thread or a process.
HANDED_ON: dict[str, tuple[Callable[[], object], Callable[[int], object]]] = {
    "CPUs": (
        lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        os.sched_getaffinity,
    ),
    "niceness": (
        lambda: os.nice(5),
        lambda tid: os.getpriority(os.PRIO_PROCESS, tid),
    ),
    "policy": (
        lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
        os.sched_getscheduler,
    ),
    "signal mask": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM}),
        lambda tid: status(tid, "SigBlk"),
    ),
    "working directory": (change_folder, lambda tid: os.readlink(f"/proc/{tid}/cwd")),
    "namespaces": (
        lambda: unshare(_CLONE_NEWUTS),
        lambda tid: os.readlink(f"/proc/{tid}/ns/uts"),
    ),
    "capabilities": (early.drop_capabilities, lambda tid: status(tid, "CapBnd", "CapEff")),
}
ROOTS = {"namespaces", "capabilities"}


@pytest.mark.parametrize("what", HANDED_ON)
def test_what_the_calling_thread_hands_on(manager: ProcessManager, what: str) -> None:
    """A program is born with what the thread has that spawns it, as from Popen; others are not."""
    if what in ROOTS and os.geteuid() != 0:
        pytest.skip("only root can change that")
    change, shown = HANDED_ON[what]
    before = shown(manager.spawn(SLEEP).os_pid or 0)

    def spawn() -> tuple[object, object, object]:
        change()
        process = manager.spawn(SLEEP)
        popen = subprocess.Popen(SLEEP)
        popen.kill()
        popen.wait()
        return process, shown(process.os_pid or 0), shown(threading.get_native_id())

    thread, outcome = in_thread(spawn)
    thread.join()
    assert isinstance(outcome[0], tuple), outcome
    process, of_child, of_thread = outcome[0]
    after = shown(manager.spawn(SLEEP).os_pid or 0)

    assert of_child == of_thread
    assert of_child != before
    assert after == before

    process.terminate()


def test_a_thread_that_ends_takes_no_program_with_it(manager: ProcessManager) -> None:
    """A parent-death signal comes with the end of the thread that forked (python-prctl#14)."""
    argv = ["setpriv", "--pdeathsig", "KILL", *SLEEP]
    thread, outcome = in_thread(lambda: manager.spawn(argv))
    thread.join()
    (process,) = outcome
    kernel.eventually(lambda: b"sleep" in cmdline(process), "setpriv has executed it")  # type: ignore[arg-type]
    kernel.eventually(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists(), "it ended")

    assert process.returncode is None  # type: ignore[attr-defined]
    assert kernel.lives(process.os_pid)  # type: ignore[attr-defined]


def cmdline(process: Process) -> bytes:
    return Path(f"/proc/{process.os_pid}/cmdline").read_bytes()


def test_only_what_is_spawned_is_marked(manager: ProcessManager) -> None:
    """Neither the threads of this host, nor what they start meanwhile in other ways."""
    process = manager.spawn(SLEEP)
    if Worn.by(process.os_pid or 0) == UNWORN:
        pytest.skip("this kernel keeps no marks")
    strangers: list[subprocess.Popen[bytes]] = []

    def start_strangers() -> None:
        strangers.extend(subprocess.Popen(SLEEP) for _ in range(20))

    threads = [threading.Thread(target=start_strangers) for _ in range(2)]
    for thread in threads:
        thread.start()
    spawned = [manager.spawn(SLEEP) for _ in range(20)]
    for thread in threads:
        thread.join()
    worn = [Worn.by(each.pid) for each in strangers]
    tids = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    for process in spawned:
        process.terminate()
    alive = [each.poll() for each in strangers]
    for each in strangers:
        each.kill()
        each.wait()

    assert set(worn) == {UNWORN}
    assert {Worn.by(tid) for tid in tids} == {UNWORN}
    assert set(alive) == {None}


def test_strangers_that_finalizers_start_are_left_alone(manager: ProcessManager) -> None:
    """Also those that are started on the very thread that starts programs; and their daemons."""
    with Strangers() as strangers:
        for _ in range(30):
            process = manager.spawn(["sh", "-c", "(setsid sleep 300 &); exec sleep 300"])
            for _ in range(2):
                strangers.start_by_finalizer()
            process.terminate()

    assert strangers.started == 60
    assert strangers.touched == 0


def test_a_finalizer_that_spawns_on_the_launchers_own_thread(manager: ProcessManager) -> None:
    """It waits for nobody: the thread is there already."""
    launcher = launchers.first()
    if launcher is None:
        pytest.skip("this kernel keeps no marks")
    process = launcher.call(lambda: manager.spawn(SLEEP))

    assert kernel.lives(process.os_pid or 0)


#: Says at once what holds for it by then.
LIMITED = ["sh", "-c", "ulimit -t; exec sleep 300"]


def test_limits_stand_before_the_program_runs(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """It is held back until then, however soon it looks."""
    owner = manager.create_process("owner")
    said = []
    for _ in range(20):
        child = trees.spawn(
            owner.pid, LIMITED, stdout=subprocess.PIPE, limits=ResourceLimits(cpu=77)
        )
        assert child.stdout is not None
        with child.stdout as stdout:
            said.append(stdout.readline())
        trees.kill(owner.pid, child)

    assert said == [b"77\n"] * 20


@pytest.mark.parametrize("is_there", [True, False], ids=["marks", "no marks"])
def test_a_forked_host_starts_its_own(
    manager: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """With marks on a thread of its own, as the parent's is not there; or without any."""
    manager.spawn(SLEEP)
    if not is_there:
        monkeypatch.setattr(launchers, "first", lambda: None)

    def in_child() -> None:
        mine = manager.create_process("child's")
        argv = ["sh", "-c", early.BARE_SHELL]
        trees = manager.orchestrator["processes"].manager
        child = trees.spawn(mine.pid, argv, stdout=subprocess.PIPE)
        with child.stdout as said:
            daemon = OsProcess.open(int(said.readline()))
        assert mine.terminate().is_success
        assert kernel.is_gone(daemon)
        assert kernel.is_gone(child.os_pid)
        # Its reaper, too, which would come to this host.
        manager.close()

    assert exit_code_of_fork(in_child) == 0


#: As under gunicorn -k gevent: threads, locks and Popen are replaced by those of an event loop.
UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import os
from probate_processes.birth import Birth
from probate_processes.launcher import Caller, launchers
from probate_processes.marks import Mark
from probate_processes.threadmarks import Worn
launcher = launchers.first()
birth = Birth(Mark.new(launcher.marks), launcher, Caller.here(), None, {}, is_held=False)
launcher.call(lambda: birth.start(["sleep", "300"], {}))
print(any(Worn.by(birth.os_pids[0])), any(Worn.by(os.getpid())), launcher.tid != os.getpid())
birth.leader.send_signal(9)
"""


def test_under_gevent() -> None:
    """The thread is a real one: the loop's would mark all that the host starts."""
    pytest.importorskip("gevent")
    command = [sys.executable, "-c", UNDER_GEVENT]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)

    assert done.stdout.split() == [b"True", b"False", b"True"], done.stderr
