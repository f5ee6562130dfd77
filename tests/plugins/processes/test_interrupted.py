"""Starts that are interrupted, refused, or over before anybody could look: nothing is left."""

from __future__ import annotations

import _weakrefset
import gc
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import processes_kernel as kernel
import pytest
from children import exit_code_of_fork

from probate import PidfdUnavailableError, ProcessManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from probate_processes import ProcessTreeManager

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    # From 3.12 on, os.fork() warns where there are several threads: these tests are about that.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

ROUNDS = 300 if os.environ.get("PROBATE_CHAOS") else 24

#: It has a daemon at once.
FAMILY = ["sh", "-c", "(setsid sleep 300 &); exec sleep 300"]


class Shutdown(Exception):  # noqa: N818  as users call it
    """What a host's own signal handler raises."""


@contextmanager
def alarm(handler: Callable[[], object]) -> Iterator[Callable[[float], object]]:
    """Have a handler called some seconds from when that is told.

    Python prints and drops what a handler raises in a callback: of the collector, such as
    Hypothesis has, of which there are none meanwhile; of a weak reference, as `threading` has them,
    after which it is called a moment later.
    """

    def call(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename == _weakrefset.__file__:
                signal.setitimer(signal.ITIMER_REAL, 0.001)
                return
            frame = frame.f_back
        handler()

    callbacks = gc.callbacks[:]
    gc.callbacks.clear()
    before = signal.signal(signal.SIGALRM, call)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.callbacks += callbacks


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, Shutdown])
def test_a_spawn_that_an_exception_falls_into(
    manager: ProcessManager, trees: ProcessTreeManager, mark: str, error: type[BaseException]
) -> None:
    """The program lived on, owned by nobody (BigDL#4487): it is owned, or ended with all of it."""

    def fall_in() -> None:
        raise error

    owner = manager.create_process("owner")
    fallen = 0
    longest = 0.01
    with alarm(fall_in) as set_alarm:
        for _ in range(ROUNDS):
            child = None
            try:
                set_alarm(random.uniform(0.0001, longest))
                child = trees.spawn(owner.pid, FAMILY)
                set_alarm(0)
            except error:
                fallen += 1
            finally:
                set_alarm(0)
            if child is None:
                # But for one that fell in when all was done: it is owned then.
                trees.table.cleanup(owner.pid)
            else:
                trees.kill(owner.pid, child)
            assert kernel.marked(mark) == set()

    assert fallen
    assert owner.pid not in trees.table


# What falls in between a socket, or a file, and its name leaves it to be collected: closed, with a
# warning.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <(socket|_io.FileIO):pytest.PytestUnraisableExceptionWarning"
)
def test_a_handler_that_ends_everything_in_the_middle_of_a_spawn(mark: str) -> None:
    """A service closes its manager when it is told to stop, and goes: neither hangs."""
    for _ in range(ROUNDS // 3):
        manager = ProcessManager.builder().with_grace(0).build()

        def stop(manager: ProcessManager = manager) -> None:
            manager.close()
            raise Shutdown

        with alarm(stop) as set_alarm, pytest.raises(Shutdown):
            _spawn_on_and_on(manager, set_alarm)
        manager.close()

        assert kernel.marked(mark) == set()


def _spawn_on_and_on(manager: ProcessManager, set_alarm: Callable[[float], object]) -> None:
    set_alarm(random.uniform(0.0001, 0.05))
    for _ in range(100):
        manager.spawn(FAMILY)


def ignoring() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def reaping_all() -> None:
    def reap(*_: object) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    signal.signal(signal.SIGCHLD, reap)


@pytest.mark.parametrize("begin", [ignoring, reaping_all])
def test_a_quick_program_whose_status_somebody_took(
    manager: ProcessManager, mark: str, begin: Callable[[], None]
) -> None:
    """A host that ignores SIGCHLD, or waits for all (php-src#11871, bun#43203): no error.

    What the program has left behind is ended.
    """

    def child() -> None:
        begin()
        for _ in range(30):
            process = manager.spawn(["sh", "-c", "(setsid sleep 300 &); exit 3"])
            manager.wait(process.pid, 15)
            assert process.returncode in {None, 3}
            assert kernel.marked(mark) == set()

    assert exit_code_of_fork(child) == 0


def test_one_that_is_reaped_before_it_can_be_pinned(
    manager: ProcessManager, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status is unknown, its daemon is ended, and it is settled at once."""
    reaped: list[int] = []
    open_pidfd = os.pidfd_open

    def open_late(os_pid: int) -> int:
        if not reaped and kernel.parent(os_pid) == os.getpid():
            reaped.append(os.waitpid(os_pid, 0)[0])
        return open_pidfd(os_pid)

    monkeypatch.setattr(os, "pidfd_open", open_late)
    process = manager.spawn(["sh", "-c", "(setsid sleep 300 &); exit 3"])
    manager.wait(process.pid, 15)

    assert reaped == [process.os_pid]
    assert process.returncode is None
    assert kernel.marked(mark) == set()


def test_without_pidfds_nothing_is_started(
    manager: ProcessManager, trees: ProcessTreeManager, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    """A sandbox refuses them: that is asked before the program runs, and not after."""

    def refuse(_: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    owner = manager.create_process("owner")
    monkeypatch.setattr(os, "pidfd_open", refuse)
    touch = ["sh", "-c", "kill -9 $PPID"]
    with pytest.raises(PidfdUnavailableError):
        trees.spawn(owner.pid, touch)

    assert owner.pid not in trees.table
    assert kernel.marked(mark) == set()


def test_a_program_that_cannot_be_pinned_is_ended_with_its_children(
    manager: ProcessManager, trees: ProcessTreeManager, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    """All descriptors were taken in the moment of the fork: the error is raised, nothing lives."""
    refused: list[int] = []
    open_pidfd = os.pidfd_open

    def refuse_once(os_pid: int) -> int:
        if not refused and kernel.parent(os_pid) == os.getpid():
            refused.append(os_pid)
            raise OSError(24, "Too many open files")
        return open_pidfd(os_pid)

    owner = manager.create_process("owner")
    monkeypatch.setattr(os, "pidfd_open", refuse_once)
    with pytest.raises(OSError, match="Too many open files"):
        trees.spawn(owner.pid, FAMILY)

    assert refused
    assert kernel.is_gone(refused[0])
    assert kernel.marked(mark) == set()
    assert owner.pid not in trees.table


#: Its /proc is still that of the namespace around it.
IN_A_NAMESPACE = """
from probate import ProcessManager
from probate_processes import ForeignProcError
with ProcessManager.builder().with_grace(0).build() as manager:
    try:
        manager.spawn(["true"])
    except ForeignProcError as error:
        print(error)
"""


@pytest.mark.needs_root(reason="a pid namespace of its own")
def test_the_proc_of_another_pid_namespace_is_refused() -> None:
    """Pids would name strangers: the error says how to mount the right one."""
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", IN_A_NAMESPACE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "another pid namespace" in done.stdout, done.stderr
    assert "--mount-proc" in done.stdout
