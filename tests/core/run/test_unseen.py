"""What cannot be seen is said so, with the reason; and what can be done without it is done."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import sys
from pathlib import Path

import pytest
import run_surroundings
import run_things
from run_fronts import RunFront, is_alive
from run_things import is_there

from probate.run.filter import ObservationUnavailableError, install

SUPPORT = str(Path(run_things.__file__).parent)

MAKES = f"""
import ctypes, mmap, os, sys, time
sys.path.insert(0, {SUPPORT!r})
import run_things
if os.fork() == 0:
    time.sleep(1000)
os.write(1, run_things.shm(sys.argv[1]).encode() + b"\\n")
"""
WAITS = MAKES + "time.sleep(1000)"

X86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")


def notes_of(front: RunFront) -> list[str]:
    made = front.line()
    (child,) = map(
        int, Path(f"/proc/{front.command}/task/{front.command}/children").read_text().split()
    )
    os.kill(front.command, signal.SIGKILL)
    account = front.account()
    try:
        assert is_there(made)
    finally:
        run_things.remove(made)

    assert not is_alive(child)
    assert [each.os_pid for each in account.settled] == [child]
    return list(account.notes)


@X86_64
def test_a_sandbox_without_seccomp(tmp_path: Path, name: str) -> None:
    """Processes are ended all the same."""
    by = [sys.executable, run_surroundings.__file__, "without_seccomp"]
    environment = {"PYTHONPATH": SUPPORT}
    command = [sys.executable, "-c", WAITS, name]
    with RunFront(*command, state=tmp_path, by=by, environment=environment) as front:
        (note,) = notes_of(front)

        assert "lets nobody look on (seccomp: Operation not permitted)" in note


@X86_64
def test_a_supervisor_that_looks_on_already(tmp_path: Path, name: str) -> None:
    """The kernel allows but one."""
    by = [sys.executable, run_surroundings.__file__, "under_another_listener"]
    environment = {"PYTHONPATH": SUPPORT}
    command = [sys.executable, "-c", "print('ran')"]
    with RunFront(*command, state=tmp_path, by=by, environment=environment) as front:
        assert front.line() == "ran"
        (note,) = front.account().notes

        assert "another supervisor looks on already" in note
        assert "--observe none" in note


def test_an_ordinary_user_may_change_user_or_be_looked_on(tmp_path: Path, name: str) -> None:
    """One excludes the other: with --allow-setuid a program may get more rights by exec."""
    if os.geteuid() == 0:
        pytest.skip("root may have both")
    with RunFront(sys.executable, "-c", WAITS, name, state=tmp_path, allow_setuid=True) as front:
        assert "NoNewPrivs:\t0" in Path(f"/proc/{front.command}/status").read_text()
        (note,) = notes_of(front)

        assert "--allow-setuid" in note


def test_root_may_have_both(tmp_path: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user may not")
    for allowed in (True, False):
        with RunFront(
            sys.executable, "-c", WAITS, name, state=tmp_path, allow_setuid=allowed
        ) as front:
            made = front.line()
            assert "NoNewPrivs:\t0" in Path(f"/proc/{front.command}/status").read_text()
            os.kill(front.command, signal.SIGKILL)
            assert front.account().notes == ()
            assert not is_there(made)


@X86_64
@pytest.mark.parametrize(
    ("source", "note"),
    [
        pytest.param(
            # io_uring_setup: refused or not, somebody has asked for one.
            "ctypes.CDLL(None).syscall(425, 0, None)",
            "has an io_uring",
            id="io_uring",
        ),
        pytest.param(
            # seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER), of no filter.
            "ctypes.CDLL(None).syscall(317, 1, 8, None)",
            "was refused a listener of its own",
            id="listener",
        ),
        pytest.param(
            # mov eax, 243; int 0x80; ret
            "code = mmap.mmap(-1, 4096, prot=7); code.write(bytes.fromhex('b8f3000000cd80c3'));"
            "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()",
            "is a 32-bit program",
            id="32 bits",
        ),
    ],
)
def test_what_is_made_unseen_is_said_once(
    tmp_path: Path, name: str, source: str, note: str
) -> None:
    """Who did, and nothing more is known."""
    program = f"{MAKES}\n{source}\n{source}\nos.write(1, b'done\\n')"
    with RunFront(sys.executable, "-c", program, name, state=tmp_path) as front:
        front.line()
        if front.line() != "done":
            pytest.skip("this kernel runs no 32-bit programs")
        notes = [each for each in front.account().notes if note in each]

        assert len(notes) == 1
        assert f"(pid {front.command})" in notes[0]


def test_what_a_program_calls_it_that_nobody_may_read_is_said_to_be_unseen(
    tmp_path: Path, name: str
) -> None:
    """It has forbidden that itself, as this one does, or the system has: the note names both."""
    # PR_SET_DUMPABLE.
    forbids = "import run_things; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)"
    program = f"{MAKES.replace('import run_things', forbids)}\ntime.sleep(1000)"
    # Root may read all, but for this.
    by = ["setpriv", "--bounding-set=-sys_ptrace"] if os.geteuid() == 0 else []
    if by and shutil.which(by[0]) is None:
        pytest.skip("there is no setpriv(1) here, by which root is refused to read")
    with RunFront(sys.executable, "-c", program, name, state=tmp_path, by=by) as front:
        (note,) = notes_of(front)

        assert f"(pid {front.command}) does not let its memory be read" in note
        assert "kernel.yama.ptrace_scope" in note


def test_the_filter_is_refused_where_nobody_knows_the_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No filter is better than one with the numbers of another machine."""
    fields = (*os.uname()[:4], "riscv64")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(fields))
    with pytest.raises(ObservationUnavailableError, match="riscv64"):
        install(allow_setuid=False)
    assert ctypes.CDLL(None).prctl(21, 0, 0, 0, 0) == 0
