"""One OS process, pinned: what is said of it and sent to it never concerns another one."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from children import exit_code_of_fork
from spawn_sleepers import sleeper, successor, wait_for_exit

from probate import OsProcess
from probate.system.osprocess import start_time_of, stat_of

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    # From 3.12 on, os.fork() warns where there are several threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

#: Names that look like the fields of /proc/PID/stat, or end them.
NASTY_NAMES = ("a b", "x) R 1 1 1", "((", "))", ") Z (", "a\nb")


def test_it_tells_pid_and_start_time_as_the_kernel_does() -> None:
    """The start time is the kernel's, in clock ticks since boot; psutil reads the same."""
    with sleeper() as popen, OsProcess.open(popen.pid) as process:
        boot = psutil.boot_time()
        ticks = os.sysconf("SC_CLK_TCK")

        assert process.os_pid == popen.pid
        assert start_time_of(popen.pid) == process.start_time
        assert psutil.Process(popen.pid).create_time() == pytest.approx(
            boot + process.start_time / ticks, abs=1.1
        )


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_a_program_may_have_any_name(tmp_path: Path, name: str) -> None:
    """A name with spaces and parentheses does not move the fields after it."""
    program = tmp_path / name
    program.symlink_to("/bin/sleep")
    with sleeper(str(program), "1000") as popen, OsProcess.open(popen.pid) as process:
        # Between fork and exec it still has another name, and may be running.
        while Path(f"/proc/{popen.pid}/comm").read_text() != f"{name}\n":
            os.sched_yield()
        fields = stat_of(popen.pid)

        assert int(fields[1]) == os.getpid()
        assert start_time_of(popen.pid) == process.start_time


@pytest.mark.parametrize("bad", [0, -1, -4711])
def test_what_is_no_pid_is_refused(bad: int) -> None:
    """Zero and negative numbers mean groups to the kernel, and nothing here."""
    with pytest.raises(ValueError, match=str(bad)):
        OsProcess.open(bad)


@pytest.mark.parametrize("bad", [None, "1", 1.0, True, b"1", [1]])
def test_what_is_no_number_is_refused(bad: Any) -> None:
    """A bool is no pid either, although it is an int."""
    with pytest.raises(TypeError, match="must be an int"):
        OsProcess.open(bad)


@pytest.mark.parametrize("number", [1 << 22, 1 << 31, 1 << 40, 1 << 70])
def test_a_number_that_no_process_has_is_not_found(number: int) -> None:
    """Also one that is too large for any pid, and for the system call."""
    with pytest.raises(ProcessLookupError, match=str(number)):
        OsProcess.open(number)


def test_a_thread_is_no_process() -> None:
    """A thread's id is in the same number space; it cannot be pinned, and does not crash it."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait, args=(20,))
    thread.start()
    try:
        with pytest.raises(ProcessLookupError):
            OsProcess.open(thread.native_id or 0)
    finally:
        over.set()
        thread.join(5)


def test_one_that_has_been_reaped_is_not_found() -> None:
    """ProcessLookupError, and no descriptor left open."""
    with sleeper("true") as popen:
        popen.wait(10)

        with pytest.raises(ProcessLookupError):
            OsProcess.open(popen.pid)
        with pytest.raises(ProcessLookupError):
            start_time_of(popen.pid)


@pytest.mark.parametrize("has_successor", [False, True], ids=["free", "taken"])
def test_one_that_is_reaped_while_it_is_opened_is_not_found(
    monkeypatch: pytest.MonkeyPatch, has_successor: bool
) -> None:
    """Its pid is free or another's by then: it never gets that one's start time."""
    with sleeper() as popen, contextlib.ExitStack() as stack:

        def look(os_pid: int) -> int:
            # After the pid was pinned, and before the start time is known.
            before = start_time_of(os_pid)
            popen.kill()
            popen.wait(10)
            if not has_successor:
                return before
            stack.enter_context(successor(os_pid))
            return start_time_of(os_pid)

        monkeypatch.setattr("probate.system.osprocess.start_time_of", look)
        with pytest.raises(ProcessLookupError, match=str(popen.pid)):
            OsProcess.open(popen.pid)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -KILL $$", -signal.SIGKILL),
        ("kill -TERM $$", -signal.SIGTERM),
        ("kill -ABRT $$", -signal.SIGABRT),
    ],
)
def test_the_exit_code_is_as_subprocess_puts_it(script: str, code: int) -> None:
    """Exit statuses are themselves, signals negative; looking does not reap."""
    with sleeper("sh", "-c", script) as popen, OsProcess.open(popen.pid) as process:
        wait_for_exit(popen.pid)
        looked = [process.exit_code(reap=False) for _ in range(2)]

        assert looked == [code, code]
        assert code == popen.wait(10)


def test_a_core_dump_is_a_death_by_signal(tmp_path: Path) -> None:
    """CLD_DUMPED has a signal's number, as CLD_KILLED has."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith(("|", "/")):
        pytest.skip(f"a core would go elsewhere: {pattern}")
    source = (
        "import os, resource as r;"
        "r.setrlimit(r.RLIMIT_CORE, (r.getrlimit(r.RLIMIT_CORE)[1],) * 2); os.abort()"
    )
    with (
        subprocess.Popen([sys.executable, "-c", source], cwd=tmp_path) as popen,
        OsProcess.open(popen.pid) as process,
    ):
        wait_for_exit(popen.pid)
        code = process.exit_code(reap=False)

        assert code == -signal.SIGABRT
        assert code == popen.wait(10)


def test_a_zombie_is_pinned_and_there_until_it_is_reaped() -> None:
    """It has exited, its pid is still its own; after the reaping it is another's for the taking."""
    with sleeper("sh", "-c", "exit 7") as popen:
        wait_for_exit(popen.pid)
        with OsProcess.open(popen.pid) as process:
            states = [(process.has_exited(), process.is_there())]
            code = process.exit_code(reap=True)
            states.append((process.has_exited(), process.is_there()))
            # Popen must not wait for a pid that may be another's.
            popen.returncode = code

            assert code == 7
            assert states == [(True, True), (True, False)]
            assert not Path(f"/proc/{popen.pid}").exists()
            assert not process.send_signal(signal.SIGKILL)
            with pytest.raises(ChildProcessError):
                process.exit_code(reap=False)


def test_one_that_runs_has_no_exit_code() -> None:
    """Nor one that is stopped, which has not exited."""
    with sleeper() as popen, OsProcess.open(popen.pid) as process:
        os.kill(popen.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, popen.pid, os.WSTOPPED)

        assert process.exit_code(reap=True) is None
        assert not process.has_exited()
        assert process.is_there()


def test_the_exit_code_of_a_strangers_child_is_not_told() -> None:
    """waitid(2) tells of children only: ChildProcessError, and no wrong number."""
    with OsProcess.open(os.getppid()) as process, pytest.raises(ChildProcessError):
        process.exit_code(reap=False)


def test_a_signal_never_reaches_a_successor_of_the_pid() -> None:
    """With the pid given to another process, that one is neither signalled nor mistaken."""
    with sleeper() as popen:
        process = OsProcess.open(popen.pid)
        popen.kill()
        popen.wait(10)
        with process, successor(process.os_pid) as other:
            sent = [process.send_signal(number) for number in (signal.SIGKILL, signal.SIGTERM, 0)]

            assert sent == [False, False, False]
            assert not process.is_there()
            assert process.has_exited()
            with pytest.raises(ChildProcessError):
                process.exit_code(reap=True)
            with OsProcess.open(other.pid) as pinned:
                assert not pinned.has_exited()
                assert pinned.os_pid == process.os_pid


@pytest.mark.parametrize("bad", [-1, 65, 999, 1 << 31, 1 << 70])
def test_a_number_that_is_no_signal_is_a_value_error(bad: int) -> None:
    """It names the number, and nothing is sent."""
    with sleeper() as popen, OsProcess.open(popen.pid) as process:
        with pytest.raises(ValueError, match=str(bad)):
            process.send_signal(bad)

        assert not process.has_exited()


def test_a_closed_one_says_no_more() -> None:
    """Closing twice is closing once; the process itself is left alone."""
    with sleeper() as popen:
        process = OsProcess.open(popen.pid)
        fd = process.fileno()
        process.close()
        process.close()

        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(fd)
        assert process.fileno() == -1
        assert process.has_exited()
        assert not process.send_signal(signal.SIGKILL)
        assert not process.is_there()
        with pytest.raises(ChildProcessError, match="no longer held"):
            process.exit_code(reap=True)
        assert popen.poll() is None


def test_a_close_in_another_thread_never_makes_it_look_at_another_process() -> None:
    """A descriptor's number is reused at once: whoever uses it keeps it from being closed."""
    errors: list[BaseException] = []
    over = threading.Event()
    with sleeper() as victim, sleeper() as bystander, sleeper("true") as dead:
        wait_for_exit(dead.pid)
        held = [OsProcess.open(victim.pid)]

        def use() -> None:
            try:
                while not over.is_set():
                    process = held[0]
                    # Alive, or closed; never ValueError or EBADF.
                    process.has_exited()
                    process.send_signal(signal.SIGCONT)
                    with contextlib.suppress(ChildProcessError):
                        process.exit_code(reap=False)
            except BaseException as error:
                errors.append(error)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(500):
                held[0].close()
                # Takes the number that has just come free.
                with OsProcess.open(dead.pid):
                    held[0] = OsProcess.open(victim.pid)
        finally:
            over.set()
            for thread in threads:
                thread.join(10)
            sys.setswitchinterval(interval)
            held[0].close()

        assert errors == []
        assert (victim.poll(), bystander.poll()) == (None, None)


def test_a_forked_child_can_ask_and_close_for_itself() -> None:
    """It can signal, but not reap, what is not its child; its close is not the parent's."""
    with sleeper() as popen, OsProcess.open(popen.pid) as process:

        def child() -> None:
            assert process.is_there()
            assert not process.has_exited()
            with pytest.raises(ChildProcessError):
                process.exit_code(reap=True)
            process.close()

        assert exit_code_of_fork(child) == 0
        assert process.is_there()
        assert process.send_signal(signal.SIGKILL)
        assert popen.wait(10) == -signal.SIGKILL


def test_a_pidfd_that_was_closed_elsewhere_reaches_nobody() -> None:
    """python-manhole#58: its number may be another process's, which is left alone."""
    with sleeper() as popen, sleeper() as stranger:
        process = OsProcess.open(popen.pid)
        number = process.fileno()
        pidfd = os.pidfd_open(stranger.pid)
        os.dup2(pidfd, number, inheritable=False)
        os.close(pidfd)

        if os.fstat(number).st_ino == process.descriptors[0].identity.inode:
            pytest.skip("this kernel tells no pidfd from another (pidfs, since Linux 6.9)")
        with pytest.raises(OSError, match="closed the pidfd") as caught:
            process.send_signal(signal.SIGKILL)
        with pytest.raises(OSError, match="closed the pidfd"):
            process.exit_code(reap=True)
        process.close()

        assert caught.value.errno == errno.EBADF
        assert stranger.poll() is None
        os.fstat(number)
        os.close(number)
