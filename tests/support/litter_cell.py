"""One cell: the program is run by one supervisor, one failure happens, and what is left is counted.

    python tests/support/litter_cell.py SUPERVISOR FAILURE VENV UNPACKED

A process of its own, to which all that the supervisor starts comes when its parents have died. In
the end it is ended by pid, and what is left is removed. Prints what it has found, and what was
said, as JSON.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Self, final

import psutil
from litter import things
from litter.results import FAILURES, Cell
from litter.supervisors import SUPERVISORS, AbsentError, Supervisor, Surroundings

from probate.system.peer import peer_of
from probate.system.subreaper import set_subreaper

#: Seconds that the program gets to be there, on however busy a machine; and all of the cell.
_STARTING: Final = 30.0
_ALL: Final = 75

#: Seconds without a change after which there are no more, while a supervisor lives that could act;
#: and at most. Where there is nobody who could, there is nothing to wait for.
_QUIET: Final = 4.0
_MOST: Final = 20.0

_MOMENT: Final = 0.1


@final
class Program:
    """The program, as it runs: who its processes are, and what it has made."""

    def __init__(self, place: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(place / "roll"))
        (place / "roll").chmod(0o666)
        self._listener.listen()
        self._rolls: list[socket.socket] = []
        #: The pids and pidfds of its processes, by what they are.
        self.processes: dict[str, tuple[int, int]] = {}
        self.things: dict[str, Any] = {}
        self.main: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._rolls):
            each.close()
        for process in self.processes.values():
            os.close(process[1])

    def wait(self) -> None:
        """Wait until all of it is there. Raises TimeoutError."""
        over = time.monotonic() + _STARTING
        while len(self.processes) < len(things.PROCESSES):
            left = over - time.monotonic()
            if left <= 0:
                raise TimeoutError("the program has not started")
            if select.select([self._listener], [], [], min(left, 1))[0]:
                self._enrol()

    def _enrol(self) -> None:
        roll, _ = self._listener.accept()
        self._rolls.append(roll)
        # The kernel says who it is, in whatever pid namespace.
        os_pid = peer_of(roll)[0]
        with roll.makefile() as lines:
            said = json.loads(lines.readline())
        self.processes[said["role"]] = os_pid, os.pidfd_open(os_pid)
        if said["role"] == "main":
            self.main = roll
            self.things = said["things"]

    def left(self) -> list[str]:
        """What is there still of all that it was and had made."""
        living = [role for role, (_, pidfd) in self.processes.items() if _lives(pidfd)]
        return living + [kind for kind, what in self.things.items() if things.is_there(kind, what)]

    def send(self, number: int, *roles: str) -> None:
        """Send a signal to some of its processes; to all if not said."""
        for role in roles or self.processes:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.processes[role][1], number)

    def remove(self) -> None:
        """Remove what it has left."""
        for kind, what in self.things.items():
            # Of one, that is no reason to leave the others.
            with suppress(OSError):
                things.remove(kind, what)


def _lives(pidfd: int) -> bool:
    return not select.select([pidfd], [], [], 0)[0]


def _descendants(of: int) -> list[psutil.Process]:
    """All that descend from a process, and have not ended."""
    found = []
    with suppress(psutil.Error):
        for each in psutil.Process(of).children(recursive=True):
            with suppress(psutil.Error):
                if each.status() != psutil.STATUS_ZOMBIE:
                    found.append(each)
    return found


def _kill_tree(top: int, program: Program) -> None:
    """Kill a supervisor and whatever descends from it, and the program: frozen, in one stroke."""
    program.send(signal.SIGSTOP)
    with suppress(psutil.Error):
        tree = [psutil.Process(top), *_descendants(top)]
        for each in tree:
            with suppress(psutil.Error):
                each.suspend()
        for each in {*tree, *_descendants(top)}:
            with suppress(psutil.Error):
                each.kill()
    program.send(signal.SIGKILL)


def fail(failure: str, supervisor: int, program: Program) -> None:
    """Have one of the failures happen."""
    if failure == "a":
        program.send(signal.SIGKILL, "main")
    elif failure == "b":
        os.kill(supervisor, signal.SIGKILL)
    elif failure == "c":
        _kill_tree(supervisor, program)
    elif failure == "d":
        assert program.main is not None
        program.main.sendall(b".")
    else:
        program.send(signal.SIGSTOP)
        program.send(signal.SIGKILL)


def settled(program: Program) -> tuple[list[str], float]:
    """Wait until nothing changes any more; what is left, and the seconds until the last change."""
    begun = changed = time.monotonic()
    last = program.left()
    while True:
        members = {os_pid for os_pid, _ in program.processes.values()}
        is_over = not [each for each in _descendants(os.getpid()) if each.pid not in members]
        # A moment more for what the kernel does when the last one has gone.
        time.sleep(_MOMENT)
        left = program.left()
        now = time.monotonic()
        if left != last:
            last, changed = left, now
        elif is_over or now - changed > _QUIET or now - begun > _MOST:
            return left, changed - begun


def end_all() -> None:
    """End all that descends from this process."""
    while found := _descendants(os.getpid()):
        for each in found:
            with suppress(psutil.Error):
                each.kill()
        time.sleep(_MOMENT / 10)
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def run(supervisor: Supervisor, failure: str, here: Surroundings) -> Cell:
    """Run the program, have it fail, and see what is left. Raises AbsentError, TimeoutError."""
    cell = Cell(supervisor.name, os.geteuid() == 0, failure)
    command = supervisor.command(here)
    program_of = shutil.which(command[0])
    if program_of is None:
        raise AbsentError("not installed, and its package could not be had")
    with Program(here.place) as program, (here.place / "said").open("wb") as said:
        process = subprocess.Popen(
            [program_of, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=here.place,
            start_new_session=True,
        )
        try:
            if supervisor.then is not None:
                supervisor.then(here)
            program.wait()
            main = program.processes["main"][0]
            if failure == "b" and (main == process.pid or process.poll() is not None):
                cell.why = "there is none: it becomes the program"
                return cell
            fail(failure, process.pid, program)
            left, cell.seconds = settled(program)
            cell.left = [kind for kind in things.LITTER if kind in left]
            kept = {kind for kind in things.DATA if kind in program.things}
            cell.lost = sorted(kept - {*left})
            return cell
        finally:
            end_all()
            program.remove()
            things.remove_called(here.tag)


def _give_up(*_: object) -> None:
    raise TimeoutError("it does not come to an end")


def main() -> int:
    """Run the cell that is asked for."""
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(_ALL)
    name, failure, venv, unpacked = sys.argv[1:]
    (supervisor,) = (each for each in SUPERVISORS if each.name == name)
    assert failure in FAILURES
    tag = f"litter-{secrets.token_hex(8)}"
    # Not in /tmp: some give a program another one.
    place = Path(tempfile.mkdtemp(prefix="litter-", dir="/var/tmp"))
    before = Path(f"/dev/shm/{tag}-before")
    set_subreaper(True)
    try:
        shutil.copy(Path(things.__file__).with_name("program.py"), place)
        (place / "before.db").write_text("row\n")
        before.write_bytes(bytes(4096))
        os.environ["PROBATE_STATE"] = str(place / "state")
        here = Surroundings(place, tag, Path(venv), Path(unpacked))
        try:
            cell = run(supervisor, failure, here)
        except (AbsentError, TimeoutError) as error:
            cell = Cell(name, os.geteuid() == 0, failure, why=str(error))
        said = place / "said"
        text = said.read_text(errors="replace") if said.exists() else ""
        json.dump({"cell": asdict(cell), "said": text}, sys.stdout)
    finally:
        before.unlink(missing_ok=True)
        shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
