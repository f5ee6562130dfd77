"""A command with namespaces of its own: what it leaves in them goes with them; files are shared."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import run_things
from run_fronts import RunFront, is_alive, wait_for_end, wait_until
from run_things import is_there

SUPPORT = str(Path(run_things.__file__).parent)

MAKES = f"""
import os, sys, time
sys.path.insert(0, {SUPPORT!r})
import run_things
name = sys.argv[1]
for make in (run_things.shm, run_things.semaphore, run_things.queue, run_things.messages):
    make(name)
os.write(1, run_things.unix(name).encode() + b"\\n")
open("result", "w").close()
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 3)
    time.sleep(1000)
os.write(1, b"%d %d\\n" % (os.getpid(), os.getppid()))
"""
WAITS = MAKES + "time.sleep(1000)"


@pytest.fixture(scope="module", autouse=True)
def _can_be_had(tmp_path_factory: pytest.TempPathFactory) -> None:
    with RunFront("true", state=tmp_path_factory.mktemp("state"), isolate=True) as front:
        front.account()
        if front.process.returncode != 0 or front.status != 0:
            pytest.skip("this kernel or container refuses namespaces")


def isolated(source: str, name: str, place: Path, tmp_path: Path) -> RunFront:
    command = [sys.executable, "-c", source, name]
    return RunFront(*command, state=tmp_path / "state", cwd=place, isolate=True, settle="all")


def inside(front: RunFront) -> list[int]:
    """All processes that descend from the command's, as seen from here."""
    found = [front.command]
    for each in found:
        words = Path(f"/proc/{each}/task/{each}/children").read_text().split()
        found += map(int, words)
    return found


def test_what_is_made_inside_is_not_there_outside(tmp_path: Path, place: Path, name: str) -> None:
    """But files are, and the paths of sockets, which are given back."""
    with isolated(WAITS, name, place, tmp_path) as front:
        path = front.line()
        assert front.line() == "2 1"
        assert is_there(path)
        assert not is_there(f"/dev/shm/{name}")
        assert not is_there(f"mq:/{name}")
        members = inside(front)
        assert os.readlink(f"/proc/{members[2]}/ns/ipc") != os.readlink("/proc/self/ns/ipc")
        # Who stands for the command, the init, the command, and its daemon.
        assert len(members) == 4
        os.kill(members[2], signal.SIGKILL)
        account = front.account()

        assert front.status == signal.SIGKILL
        assert not any(map(is_alive, members))
        assert [each.kind for each in account.settled] == ["sockets"]
        assert not is_there(path)
        assert (place / "result").exists()


def test_all_goes_with_a_front_that_is_killed(tmp_path: Path, place: Path, name: str) -> None:
    with isolated(WAITS, name, place, tmp_path) as front:
        path = front.line()
        front.line()
        members = inside(front)
        front.kill()
        wait_for_end(*members, front.keeper)

        assert not is_there(path)


@pytest.mark.parametrize(("end", "status"), [("os._exit(7)", 7 << 8), ("os.abort()", 6)])
def test_it_ends_as_the_command_does(
    tmp_path: Path, place: Path, name: str, end: str, status: int
) -> None:
    """Whoever was left has been asked to stop, and is gone."""
    source = MAKES + f"import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); {end}"
    with isolated(source, name, place, tmp_path) as front:
        front.account()

        assert front.status == status


def test_signals_of_the_front_reach_the_command(tmp_path: Path, place: Path, name: str) -> None:
    """Only those: all others reach the command itself, in the same process group."""
    source = (
        "import os, signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])\n"
        "os.write(1, b'ready\\n')\n"
        "os.write(1, b'%d\\n' % signal.sigwait([signal.SIGUSR1, signal.SIGUSR2]))\n"
    )
    with isolated(source, name, place, tmp_path) as front:
        assert front.line() == "ready"
        os.kill(front.command, signal.SIGUSR2)
        # My front passes this one on.
        front.process.send_signal(signal.SIGUSR1)
        assert front.line() == str(int(signal.SIGUSR1))


def test_it_stops_and_goes_on_with_the_command(tmp_path: Path, place: Path, name: str) -> None:
    """And is continued when the command was killed while it was stopped."""
    with isolated(WAITS, name, place, tmp_path) as front:
        front.line()
        front.line()
        command = inside(front)[2]

        def states() -> list[str]:
            stats = [Path(f"/proc/{each}/stat") for each in (front.command, command)]
            return [each.read_text().rpartition(")")[2].split()[0] for each in stats]

        os.kill(command, signal.SIGSTOP)
        wait_until(lambda: states() == ["T", "T"])
        os.kill(front.command, signal.SIGCONT)
        wait_until(lambda: states() == ["S", "S"])
        os.kill(command, signal.SIGSTOP)
        wait_until(lambda: states() == ["T", "T"])
        os.kill(command, signal.SIGKILL)
        front.account()

        assert front.status == signal.SIGKILL
