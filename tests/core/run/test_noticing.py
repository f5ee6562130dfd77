"""What a program makes by name is given back when it has died, and nothing that is not its own."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import run_things
from run_fronts import RunFront, wait_for_end
from run_things import THINGS, is_there

from probate.settlement import read_accounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.run.account import RunAccount

#: Makes what it is asked for, says what it has made, and waits.
_MAKES = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import run_things
name = sys.argv[2]
made = [getattr(run_things, each)(name) for each in sys.argv[3:]]
os.write(1, "".join(f"{each}\\n" for each in made).encode())
"""
WAITS = _MAKES + "time.sleep(1000)"
ENDS = _MAKES + "os._exit(0)"

SUPPORT = str(Path(run_things.__file__).parent)


@pytest.fixture
def temporary(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, in which nobody else makes any."""
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def program(source: str, name: str, *things: Callable[[str], str]) -> list[str]:
    return [sys.executable, "-c", source, SUPPORT, name, *(each.__name__ for each in things)]


def settled(account: RunAccount) -> dict[str, tuple[str, str]]:
    """Kind and outcome by description, of what was made by name."""
    return {
        each.description: (each.kind, each.outcome)
        for each in account.settled
        if each.kind != "processes"
    }


def test_all_that_a_killed_program_has_made_is_given_back(
    tmp_path: Path, temporary: Path, name: str
) -> None:
    """Of each kind, whether it had a name, a key or nothing; the account says whose it was."""
    with RunFront(*program(WAITS, name, *THINGS), state=tmp_path / "state", cwd=temporary) as front:
        made = [front.line() for _ in THINGS]
        assert all(map(is_there, made))
        os.kill(front.command, signal.SIGKILL)
        account = front.account()

        assert [thing for thing in made if is_there(thing)] == []
        kinds = sorted(kind for kind, _ in settled(account).values())
        # The folder that the relative socket is in.
        assert kinds == sorted([*THINGS.values(), "files"])
        assert {outcome for _, outcome in settled(account).values()} == {"released"}
        assert {each.os_pid for each in account.settled} == {front.command}
        assert account.notes == ()
        assert not list((tmp_path / "state").glob("host-*"))


def test_what_the_program_itself_gives_back_is_not_told_of(tmp_path: Path, name: str) -> None:
    source = _MAKES + f"os.unlink('/dev/shm/{name}'); time.sleep(0.1); os._exit(0)"
    with RunFront(*program(source, name, run_things.shm), state=tmp_path) as front:
        assert front.account().is_empty


@pytest.mark.parametrize(("policy", "is_left"), [("crash", True), ("all", False)])
def test_temporary_files_of_a_program_that_ended_by_itself(
    tmp_path: Path, temporary: Path, name: str, policy: str, is_left: bool
) -> None:
    """Their names may have been handed on, so they are left and told of; all else is given back."""
    things = [run_things.temporary_file, run_things.temporary_folder, run_things.shm]
    with RunFront(*program(ENDS, name, *things), state=tmp_path / "s", settle=policy) as front:
        made = [front.line() for _ in things]
        account = front.account()

        assert [is_there(thing) for thing in made] == [is_left, is_left, False]
        texts = {each.text for each in account.settled if each.kind == "files"}
        assert [("--settle all" in text) for text in texts] == [is_left]
        assert not list((tmp_path / "s").glob("host-*"))


def test_a_program_that_was_killed_leaves_no_temporary_files(
    tmp_path: Path, temporary: Path, name: str
) -> None:
    """Also if a shell says so, by its exit status."""
    command = program(WAITS, name, run_things.temporary_file)
    shell = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    with RunFront(*shell, state=tmp_path / "state") as front:
        made = front.line()
        (child,) = Path(f"/proc/{front.command}/task/{front.command}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        front.account()

        assert not is_there(made)


def test_what_is_only_reported_is_left(tmp_path: Path, name: str) -> None:
    with RunFront(*program(ENDS, name, run_things.shm), state=tmp_path, settle="report") as front:
        made = front.line()
        account = front.account()
        try:
            assert is_there(made)
            assert [each.outcome for each in account.settled] == ["refused"]
            assert "--settle report" in account.settled[0].text
            assert not list(tmp_path.glob("host-*"))
        finally:
            run_things.remove(made)


def test_what_is_to_be_kept_is_left(tmp_path: Path, name: str) -> None:
    things = [run_things.shm, run_things.semaphore, run_things.queue]
    keep = [f"/dev/shm/{name}", f"sem.{name[:-4]}*", f"/{name}"]
    with RunFront(*program(ENDS, name, *things), state=tmp_path, keep=keep) as front:
        made = [front.line() for _ in things]
        account = front.account()
        try:
            assert all(map(is_there, made))
            assert account.is_empty
        finally:
            for each in made:
                run_things.remove(each)


def test_what_was_there_before_is_left(tmp_path: Path, temporary: Path, name: str) -> None:
    """Though the program opens it as it would make it."""
    things = [run_things.shm, run_things.semaphore, run_things.queue]
    before = [each(name) for each in things]
    key = secrets.randbits(30) | 1
    ids = [run_things.libc.msgget(key, 0o1600), run_things.libc.semget(key, 1, 0o1600)]
    source = _MAKES + textwrap.dedent(
        f"""
        assert run_things.libc.msgget({key}, 0o1600) == {ids[0]}
        assert run_things.libc.semget({key}, 1, 0o1600) == {ids[1]}
        assert run_things.libc.msgget({key}, 0o3600) == -1
        try:
            run_things.unix(name)
        except OSError:
            print("in use", flush=True)
        time.sleep(1000)
        """
    )
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{temporary}/{name}.sock")
    listener.close()
    before += [f"msg:{ids[0]}", f"sem:{ids[1]}", f"{temporary}/{name}.sock"]
    try:
        with RunFront(*program(source, name, *things), state=tmp_path / "s") as front:
            assert [front.line() for _ in range(4)] == [*before[:3], "in use"]
            os.kill(front.command, signal.SIGKILL)
            account = front.account()

            assert all(map(is_there, before))
            assert settled(account) == {}
    finally:
        for each in before:
            run_things.remove(each)


def test_what_others_use_is_left_and_tried_again_later(tmp_path: Path, name: str) -> None:
    """A segment that somebody outside has open; the next sweep gives it back."""
    from probate import ResourceOrchestrator
    from probate.settlement import sweep

    with RunFront(*program(WAITS, name, run_things.shm), state=tmp_path) as front:
        made = front.line()
        with open(made):
            reading, writing = os.pipe()
            user = os.fork()
            if user == 0:
                os.read(reading, 1)
                os._exit(0)
            os.kill(front.command, signal.SIGKILL)
            account = front.account()
        try:
            assert settled(account) == {f"shared memory {name}": ("memory", "refused")}
            assert str(user) in account.settled[-1].text.split(" by ")[1].split(", ")
            assert is_there(made)
        finally:
            os.write(writing, b".")
            os.waitpid(user, 0)
        # It has what it settles locked until it has ended.
        wait_for_end(*front.all_keepers())
        (host,) = sweep(ResourceOrchestrator().discover(only=["memory"]), str(tmp_path))

        assert [str(row.outcome) for row in host.rows] == ["released"]
        assert not is_there(made)


def test_ordinary_files_are_never_touched(tmp_path: Path, temporary: Path, name: str) -> None:
    """Neither what is not in a folder for temporary files, nor what anybody opens there plainly."""
    source = _MAKES + textwrap.dedent(
        f"""
        os.mkdir("{tmp_path}/folder")
        for path in ("{tmp_path}/lock", "{tmp_path}/folder/lock"):
            os.open(path, os.O_CREAT | os.O_EXCL, 0o600)
        open("{temporary}/result", "w").close()
        os.mkfifo("{tmp_path}/folder/fifo")
        os.link("{temporary}/result", "{temporary}/linked")
        print("made", flush=True)
        time.sleep(1000)
        """
    )
    with RunFront(*program(source, name), state=tmp_path / "s", settle="all") as front:
        while front.line() != "made":
            pass
        os.kill(front.command, signal.SIGKILL)
        account = front.account()

        left = {str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*")}
        assert {each for each in left if each[0] != "s"} == {"folder", "lock", "folder/lock"}
        assert {each.name for each in temporary.iterdir()} == {"result", "linked"}
        assert settled(account) == {f"FIFO {tmp_path}/folder/fifo": ("files", "released")}


def test_what_was_replaced_by_another_is_left(tmp_path: Path, name: str) -> None:
    """It has the name, and nothing else of it."""
    with RunFront(*program(WAITS, name, run_things.shm), state=tmp_path) as front:
        made = front.line()
        front.wait_for_rows(1)
        Path(made).unlink()
        Path(made).touch()
        try:
            os.kill(front.command, signal.SIGKILL)
            account = front.account()

            assert is_there(made)
            assert settled(account) == {}
        finally:
            Path(made).unlink()


def test_nobody_looks_on_if_that_is_said(tmp_path: Path, name: str) -> None:
    """Processes are ended, and nothing is given back."""
    command = program(WAITS, name, run_things.shm)
    with RunFront(*command, state=tmp_path, observe="none") as front:
        made = front.line()
        status = Path(f"/proc/{front.command}/status").read_text()
        assert "Seccomp:\t0" in status
        assert "NoNewPrivs:\t0" in status
        os.kill(front.command, signal.SIGKILL)
        account = front.account()

        assert is_there(made)
        run_things.remove(made)
        assert account.is_empty


def test_the_account_of_a_front_that_was_killed_is_kept_for_a_sweep(
    tmp_path: Path, name: str
) -> None:
    """It is told by `probate sweep`, once."""
    with RunFront(*program(WAITS, name, run_things.shm), state=tmp_path) as front:
        made = front.line()
        front.kill()
        front.wait_for_keeper()

        assert not is_there(made)
        (host,) = read_accounts(str(tmp_path))
        assert [row.description for row in host.rows] == [f"shared memory {name}"]
        assert host.pid == front.process.pid


def test_ordinary_files_that_are_held_are_told_of(tmp_path: Path, place: Path, name: str) -> None:
    """A lock file, and the backing of a map, that are left with those who hold them."""
    source = textwrap.dedent(
        f"""
        import fcntl, mmap, os, signal, time
        lock = open("{place}/lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        backing = open("{place}/backing", "w+b")
        backing.truncate(4096)
        mapped = mmap.mmap(backing.fileno(), 4096)
        before = open("{tmp_path}/before")
        fcntl.flock(before, fcntl.LOCK_SH)
        open("{place}/result", "w").close()
        if os.fork() == 0:
            os.write(1, b"made\\n")
            time.sleep(1000)
        time.sleep(1000)
        """
    )
    (tmp_path / "before").touch()
    with RunFront(sys.executable, "-c", source, state=tmp_path / "s", settle="all") as front:
        assert front.line() == "made"
        os.kill(front.command, signal.SIGKILL)
        account = front.account()

        told = {each.description: each.evidence for each in account.settled if each.is_kept}
        assert told == {f"file {place}/lock": "held", f"file {place}/backing": "held"}
        assert {each.name for each in place.iterdir()} == {"lock", "backing", "result"}


def test_what_an_outsider_makes_during_the_run_is_left(tmp_path: Path, name: str) -> None:
    """Though the program opens it as it would make it, and nobody else uses it."""
    path = Path("/dev/shm") / name
    source = textwrap.dedent(
        f"""
        import os, sys, time
        sys.path.insert(0, {SUPPORT!r})
        import run_things
        os.write(1, b"runs\\n")
        while not os.path.exists("{path}"):
            time.sleep(0.01)
        os.write(1, run_things.shm("{name}").encode() + b"\\n")
        time.sleep(1000)
        """
    )
    with RunFront(sys.executable, "-c", source, state=tmp_path) as front:
        assert front.line() == "runs"
        path.touch()
        assert front.line() == str(path)
        os.kill(front.command, signal.SIGKILL)
        account = front.account()

        assert path.exists()
        assert settled(account) == {}


def test_a_socket_that_somebody_outside_serves_is_left(
    tmp_path: Path, place: Path, name: str
) -> None:
    """The program has handed it on: whoever connects finds a server."""
    ours, theirs = socket.socketpair()
    source = textwrap.dedent(
        f"""
        import os, socket, time
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("{place}/served")
        listener.listen()
        socket.send_fds(socket.socket(fileno={theirs.fileno()}), [b"!"], [listener.fileno()])
        time.sleep(1000)
        """
    )
    with ours, theirs:
        os.set_inheritable(theirs.fileno(), True)
        command = [sys.executable, "-c", source]
        with RunFront(*command, state=tmp_path, pass_fds=[theirs.fileno()]) as front:
            _, (fd,), _, _ = socket.recv_fds(ours, 1, 1)
            with socket.socket(fileno=fd):
                os.kill(front.command, signal.SIGKILL)
                account = front.account()

                (left,) = [each for each in account.settled if each.kind == "sockets"]
                assert str(os.getpid()) in left.text
                assert (place / "served").is_socket()


#: Makes something by name in a thread whose own name, in /proc/TID/status, seems to be a line more.
NAMED_LIKE_A_LINE = """
import ctypes, os, sys, threading
sys.path.insert(0, sys.argv[1])
import run_things
def make():
    ctypes.CDLL(None).prctl(15, b"\\rTgid:\\t" + sys.argv[3].encode())
    run_things.shm(sys.argv[2])
thread = threading.Thread(target=make)
thread.start()
thread.join()
print(flush=True)
"""


def test_a_thread_cannot_pass_for_anothers(tmp_path: Path, name: str) -> None:
    """By its name: whoever it named was taken for one of the tree, and killed with it."""
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        command = [sys.executable, "-c", NAMED_LIKE_A_LINE, SUPPORT, name, str(stranger.pid)]
        with RunFront(*command, state=tmp_path / "state") as front:
            assert front.line() == ""
            account = front.account()
        is_alive = stranger.poll() is None
        stranger.kill()

    assert is_alive
    assert str(stranger.pid) not in str(account.settled)


def test_what_a_call_is_given_may_end_where_the_memory_does(tmp_path: Path) -> None:
    """The call fails, as without anybody who looks on, whom it costs nothing."""
    source = """
import ctypes, mmap, os

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
size = mmap.PAGESIZE
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
memory = libc.mmap(None, ctypes.c_size_t(2 * size), mmap.PROT_READ, flags, -1, ctypes.c_long(0))
libc.munmap(ctypes.c_void_p(memory + size), ctypes.c_size_t(size))
# openat2(2), with a `struct open_how` of which four bytes are there.
how = ctypes.c_void_p(memory + size - 4)
libc.syscall(ctypes.c_long(437), -100, b"/dev/shm/none", how, ctypes.c_size_t(24))
os.write(1, os.strerror(ctypes.get_errno()).encode() + b"\\n")
"""
    with RunFront(sys.executable, "-c", source, state=tmp_path) as front:
        assert front.line() == os.strerror(errno.EFAULT)
        account = front.account()

        assert account.is_empty
        assert len(front.keepers) == 1
