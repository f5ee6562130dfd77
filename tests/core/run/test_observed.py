"""What a program makes by name that is spawned with observe=True, its process gives back."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import run_surroundings
import run_things
from run_fronts import PATIENCE, RunFront, wait_for_end, wait_until
from run_things import THINGS, is_there

from probate import ObservationUnavailableError, ProcessManager
from probate.run.apart import start_apart
from probate.run.facts import RunFacts, SharedPage
from probate.run.messages import receive
from probate.run.options import RunOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from probate import Process

    Spawn = Callable[..., tuple[Process, list[str]]]

SUPPORT = str(Path(run_things.__file__).parent)

#: Makes what it is asked for, says what it has made, and waits until it is told to end.
MAKES = f"""
import os, sys
sys.path.insert(0, {SUPPORT!r})
import run_things
name = sys.argv[1]
made = [getattr(run_things, each)(name) for each in sys.argv[2:]]
os.write(1, "".join(f"{{each}}\\n" for each in made).encode())
os.read(0, 1)
os._exit(0)
"""

#: A host of such a program, which says who that is and what it has made, and tells the account
#: when that has ended.
HOST = """
import os, subprocess, sys, time
from probate import ProcessManager

manager = ProcessManager.builder().build()
process = manager.spawn(
    [sys.executable, "-c", *sys.argv[1:]],
    observe=True,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
)
made = process.stdout.readline().decode().strip()
os.write(1, f"{process.os_pid}\\n{made}\\n".encode())
for note in manager.wait(process).notes:
    os.write(1, f"{note!r}\\n".encode())
os.write(1, b"settled\\n")
time.sleep(1000)
"""


@pytest.fixture
def manager(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProcessManager]:
    """One whose programs have temporary files where nobody else has any."""
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setenv("PROBATE_STATE", str(tmp_path / "state"))
    with ProcessManager.builder().build() as manager:
        yield manager


@pytest.fixture
def spawn(manager: ProcessManager, place: Path, name: str) -> Iterator[Spawn]:
    """Spawn a program that makes things; return its process, and what it has made."""
    opened = contextlib.ExitStack()

    def spawn(*things: Callable[[str], str], observe: bool = True) -> tuple[Process, list[str]]:
        process = manager.spawn(
            [sys.executable, "-c", MAKES, name, *(each.__name__ for each in things)],
            observe=observe,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=place,
        )
        assert process.stdout is not None
        opened.callback(process.stdout.close)
        return process, [process.stdout.readline().decode().strip() for _ in things]

    with opened:
        yield spawn


def keepers() -> list[int]:
    """The keepers that this process has descriptors of."""
    found = []
    for info in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            (os_pid,) = re.findall(r"^Pid:\t(\d+)$", info.read_text(), re.MULTILINE) or ["0"]
            if Path(f"/proc/{os_pid}/comm").read_text() == "probate-keeper\n":
                found.append(int(os_pid))
    return found


def left_keepers() -> set[int]:
    """The keepers, dead or alive, that are children of this process, which has no use for them."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    named = [each for each in children if "keeper" in Path(f"/proc/{each}/comm").read_text()]
    return {*map(int, named)} - {*keepers()}


def test_all_that_a_killed_program_has_made_is_given_back(
    manager: ProcessManager, spawn: Spawn
) -> None:
    """Without anybody calling; the account names it, and has no error."""
    process, made = spawn(*THINGS)
    assert all(map(is_there, made))
    process.send_signal(signal.SIGKILL)
    result = manager.wait(process)

    assert not any(map(is_there, made))
    assert result.errors == ()
    (note,) = result.notes
    assert note.startswith(f"OS process {process.os_pid} ")
    # A socket with a relative path has a folder of its own.
    assert f"and {len(THINGS) + 1 - 10} more" in note


def test_a_few_are_all_named(manager: ProcessManager, spawn: Spawn, name: str) -> None:
    process, made = spawn(run_things.shm, run_things.fifo)
    process.send_signal(signal.SIGKILL)
    (note,) = manager.wait(process).notes

    assert not any(map(is_there, made))
    assert note.endswith(
        f"gave back what it had left by name: FIFO {made[1]}, shared memory {name}"
    )


def test_after_an_end_of_its_own_temporary_files_are_left(
    manager: ProcessManager, spawn: Spawn
) -> None:
    """They may have been handed on: the account says so, of what nobody has leaked."""
    process, (file, memory) = spawn(run_things.temporary_file, run_things.shm)
    assert process.stdin is not None
    process.stdin.write(b".")
    result = manager.wait(process)
    gone, left = result.notes

    assert not is_there(memory)
    assert f"{memory.removeprefix('/dev/shm/')}" in gone
    assert is_there(file)
    assert left.endswith(
        f"left temporary file {file}: the command ended by itself, and may have handed it on"
    )
    assert (result.leaks, result.errors) == ((), ())


def test_what_is_terminated_has_left_all_of_it(spawn: Spawn) -> None:
    """Temporary files as well: it has not ended by itself."""
    process, made = spawn(run_things.temporary_file, run_things.semaphore, run_things.semaphores)
    result = process.terminate()

    assert not any(map(is_there, made))
    assert len(result.notes) == 1
    assert result.is_success


def test_nothing_of_others_is_touched(manager: ProcessManager, spawn: Spawn, name: str) -> None:
    """Neither of a program that nobody looks on, nor of another one that lives."""
    other, others = spawn(run_things.fifo, observe=False)
    process, made = spawn(run_things.shm, run_things.semaphores)
    living, theirs = spawn(run_things.queue)
    process.send_signal(signal.SIGKILL)
    manager.wait(process)

    assert not any(map(is_there, made))
    assert is_there(theirs[0])
    # Whoever has trees inherits orphans, and keepers among them.
    assert left_keepers() == set()
    living.terminate()
    assert not is_there(theirs[0])
    assert other.terminate().notes == ()
    assert is_there(others[0])


def test_a_program_that_leaves_nothing_is_not_told_of(
    manager: ProcessManager, tmp_path: Path
) -> None:
    """And nothing is left of its keeper: no process, no descriptor, no store."""

    def end() -> None:
        result = manager.wait(manager.spawn(["true"], observe=True))
        assert (result.notes, result.stats.resources_freed) == ((), 0)

    def count() -> int:
        gc.collect()
        return len([*Path("/proc/self/fd").iterdir()])

    end()
    before = count()
    for _ in range(2):
        end()

    wait_until(lambda: count() <= before, "descriptors are left")
    assert keepers() == []
    assert [*tmp_path.glob("state/host-*")] == []


def test_a_program_that_there_is_not(manager: ProcessManager, tmp_path: Path) -> None:
    """It is the same error as without, and nobody looks on at nothing."""
    with pytest.raises(FileNotFoundError):
        manager.spawn([str(tmp_path / "none")], observe=True)

    assert keepers() == []
    assert manager.list_processes() == []


def test_it_goes_on_when_its_keeper_was_killed(manager: ProcessManager, spawn: Spawn) -> None:
    """Another one takes over, also what was noted before; whoever makes things waits for it."""
    process, (first,) = spawn(run_things.shm)
    (keeper,) = keepers()
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: keepers() not in ([], [keeper]), "no other keeper came")
    process.send_signal(signal.SIGKILL)
    notes = manager.wait(process).notes

    assert not is_there(first)
    assert [note for note in notes if "another one has taken over" in note]


def test_it_goes_on_where_standard_streams_are_closed(tmp_path: Path, name: str) -> None:
    """Nothing that another keeper is given has their numbers, which mean another thing to it."""
    script = f"""
import os, signal, subprocess, sys, time
sys.path[:0] = [{SUPPORT!r}, {str(Path(__file__).parent)!r}]
from probate import ProcessManager
from test_observed import MAKES, keepers

told = os.dup(1)
manager = ProcessManager.builder().build()
process = manager.spawn(
    [sys.executable, "-c", MAKES, {name!r}, "shm"],
    observe=True,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
)
process.stdout.readline()
os.closerange(0, 3)
(keeper,) = keepers()
os.kill(keeper, signal.SIGKILL)
while keepers() in ([], [keeper]):
    time.sleep(0.01)
process.send_signal(signal.SIGKILL)
for note in manager.wait(process).notes:
    os.write(told, note.splitlines()[-1].encode() + b"\\n")
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PROBATE_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    gone, taken = ran.stdout.splitlines()

    assert gone.endswith(f"gave back what it had left by name: shared memory {name}")
    assert taken.endswith("the keeper was killed; another one has taken over")


def test_a_host_may_have_more_arguments_than_one_may_be_long(
    manager: ProcessManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they were one argument of the keeper's (execve(2), MAX_ARG_STRLEN)."""
    monkeypatch.setattr(sys, "orig_argv", [*sys.orig_argv, "x" * 100_000, "y" * 100_000])

    process = manager.spawn(["true"], observe=True)

    assert manager.wait(process).is_success


def test_nothing_is_left_of_a_start_for_which_descriptors_are_short(
    manager: ProcessManager,
) -> None:
    """However many there are: neither a descriptor nor a keeper."""

    def spawn_with(free: int) -> bool:
        used = {int(each.name) for each in Path("/proc/self/fd").iterdir()}
        unused = (number for number in itertools.count() if number not in used)
        limit = next(itertools.islice(unused, free, None))
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        try:
            process = manager.spawn(["true"], observe=True)
        except (OSError, ObservationUnavailableError):
            return False
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
        manager.wait(process)
        return True

    def numbers() -> set[str]:
        gc.collect()
        return {each.name for each in Path("/proc/self/fd").iterdir()}

    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    manager.wait(manager.spawn(["true"], observe=True))
    before = numbers()
    for free in itertools.count():
        was_started = spawn_with(free)
        wait_until(lambda: numbers() <= before, f"with {free} descriptors, some are left")
        if was_started:
            break

    assert keepers() == []


def test_a_keeper_whose_front_gives_up_ends() -> None:
    """It has been started, but nothing that it looks on at: the front lives, and has others."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    joining = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    page = SharedPage.in_file()
    front = os.pidfd_open(os.getpid())
    with ours, theirs, joining, contextlib.closing(page):
        start_apart(
            theirs, joining, front, RunFacts.of_this_process(RunOptions(("none",))), page, -1
        )
        _, (keeper,) = receive(ours)
    os.close(front)
    with open(keeper) as pidfd:
        assert select.select([pidfd], [], [], PATIENCE)[0]


def host(name: str, *things: Callable[[str], str]) -> list[str]:
    """A host of a program that makes things."""
    return [sys.executable, "-c", HOST, MAKES, name, *(each.__name__ for each in things)]


def test_a_host_that_is_killed_leaves_nothing(tmp_path: Path, name: str) -> None:
    """Its keeper does for it what that of `probate run` does."""
    with subprocess.Popen(
        host(name, run_things.shm),
        stdout=subprocess.PIPE,
        env={**os.environ, "PROBATE_STATE": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        os_pid, made = process.stdout.readline().split() + process.stdout.readline().split()
        assert is_there(made.decode())
        process.kill()
    wait_until(lambda: not is_there(made.decode()), "it is left")
    wait_for_end(int(os_pid))


def test_within_a_run_it_joins(tmp_path: Path, name: str) -> None:
    """The host's account has what its program left, and the run's has not."""
    with RunFront(*host(name, run_things.shm), state=tmp_path) as front:
        program, made = int(front.line()), front.line()
        assert is_there(made)
        os.kill(program, signal.SIGKILL)

        assert f"gave back what it had left by name: shared memory {name}" in front.line()
        assert front.line() == "settled"
        assert not is_there(made)
        os.kill(front.command, signal.SIGKILL)
        account = front.account()

        assert [each for each in account.settled if each.kind != "processes"] == []
        assert account.notes == ()


def test_what_has_joined_a_run_and_ended_costs_its_keeper_nothing(tmp_path: Path) -> None:
    """However many programs a host spawns within it."""
    script = """
import sys
from probate import ProcessManager

manager = ProcessManager.builder().build()
asked = open(int(sys.argv[1]))
while asked.readline():
    manager.wait(manager.spawn(["true"], observe=True))
    print("ended", flush=True)
"""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", script, str(reading)]
    with (
        open(writing, "w", buffering=1) as asked,
        RunFront(*command, state=tmp_path, pass_fds=[reading]) as front,
    ):
        os.close(reading)

        def spawn() -> None:
            asked.write("\n")
            assert front.line() == "ended"

        def count() -> int:
            found = []
            for each in Path(f"/proc/{front.keeper}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found.append(os.readlink(each))
            return found.count("anon_inode:[eventfd]")

        spawn()
        first = count()
        for _ in range(4):
            spawn()

        wait_until(lambda: count() <= first + 1)


def test_a_run_within_it_joins(
    manager: ProcessManager, tmp_path: Path, name: str, place: Path
) -> None:
    """It has an account of its own, and the process of the host has nothing to give back."""
    run = [sys.executable, "-m", "probate", "run", "--"]
    process = manager.spawn(
        [*run, sys.executable, "-c", MAKES, name, "shm"],
        observe=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stderr is not None
    made = process.stdout.readline().decode().strip()
    assert is_there(made)
    process.stdin.write(b".")
    process.stdin.flush()
    notes = manager.wait(process).notes

    assert not is_there(made)
    with process.stdout, process.stderr:
        assert process.stderr.read().decode() == f"probate: gave back shared memory {name}\n"
    assert notes == ()


def test_its_environment_is_what_was_asked_for(manager: ProcessManager) -> None:
    """With what Probate adds, whose names say so."""
    process = manager.spawn(["env"], observe=True, env={"OTHER": "1"}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as stdout:
        lines = stdout.read().decode().splitlines()
    manager.wait(process)

    assert [line for line in lines if not line.startswith("PROBATE_")] == ["OTHER=1"]


@pytest.mark.parametrize(
    ("surroundings", "reason"),
    [
        ("without_seccomp", "lets nobody look on"),
        ("under_another_listener", "another supervisor looks on already"),
    ],
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
def test_nothing_is_started_where_nobody_may_look_on(
    tmp_path: Path, surroundings: str, reason: str
) -> None:
    """The error says why, and what else can be done."""
    script = """
import os, sys
from probate import ObservationUnavailableError, ProcessManager
manager = ProcessManager.builder().build()
try:
    manager.spawn(["sh", "-c", "echo started"], observe=True)
except ObservationUnavailableError as error:
    os.write(1, f"{error}\\n".encode())
os.write(1, f"{manager.list_processes()}\\n".encode())
# What is under a listener that nobody serves makes nothing any more.
os._exit(0)
"""
    ran = subprocess.run(
        [sys.executable, run_surroundings.__file__, surroundings, sys.executable, "-c", script],
        env={**os.environ, "PROBATE_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    error, processes = ran.stdout.splitlines()

    assert reason in error
    assert "without observe=True" in error
    assert processes == "[]"
