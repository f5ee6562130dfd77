"""A front in its smallest form: it has no terminal and no signals, only the keeper of its run."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, final

from probate.journal.loggedstore import read_rows
from probate.run.account import RunAccount

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: Seconds for which anything is waited for, on however busy a machine.
PATIENCE = 30.0

#: The program of such a front: options as JSON, and the command.
FRONT = """
import json, os, select, signal, sys

def print(*words):
    # At once, though others write there, too.
    os.write(1, " ".join(map(str, words)).encode() + b"\\n")

from probate.run.keeper import Keeper
from probate.run.options import RunOptions

def tell_keeper():
    fields = dict(line.split(":", 1) for line in open(f"/proc/self/fdinfo/{keeper.pidfd}"))
    print("KEEPER", fields["Pid"].strip())

options = json.loads(sys.argv[1])
keeper = Keeper.start(RunOptions(tuple(sys.argv[2:]), **options))
tell_keeper()
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    # The end, if we have been killed.
    os.close(writing)
    os.read(reading, 1) or os._exit(0)
    keeper.before_exec()
    os.execvp(sys.argv[2], sys.argv[2:])
pidfd = os.pidfd_open(child)
print("COMMAND", child)
os.write(writing, b".")
keeper.started(child, pidfd)
signal.signal(signal.SIGUSR1, lambda number, _: signal.pidfd_send_signal(pidfd, number))
while True:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(keeper.pidfd, select.POLLIN)
    if pidfd in dict(poll.poll()):
        break
    keeper.revive()
    tell_keeper()
_, status = os.waitpid(child, 0)
account = keeper.ended(status)
print("ACCOUNT", account.to_json())
print("STATUS", status)
"""


@final
class RunFront:
    """Runs a command under a keeper, in an OS process of its own; killed at the end, as is all."""

    def __init__(
        self,
        *command: str,
        state: Path,
        by: Sequence[str] = (),
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        **options: Any,
    ) -> None:
        """`by` is a command that starts it; the options are those of `RunOptions`."""
        self.process = subprocess.Popen(
            [*by, sys.executable, "-c", FRONT, json.dumps(options), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PROBATE_STATE": str(state), **(environment or {})},
            cwd=cwd,
            pass_fds=pass_fds,
        )
        self.state = state
        #: The pids of the command, and of those of runs within it.
        self.commands: list[int] = []
        assert self.process.stdout is not None
        self._out = self.process.stdout
        #: The pids of its keepers, the newest last.
        self.keepers: list[int] = []
        self._said: list[str] = []
        #: How the command has ended that was settled last, as waitpid(2) has it.
        self.status = -1
        self.pidfd = os.pidfd_open(self.process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(PATIENCE)
        wait_for_end(*self.all_keepers())
        self._out.close()
        os.close(self.pidfd)

    @property
    def keeper(self) -> int:
        """The keeper's pid."""
        return self.wait_for_keepers(1)

    @property
    def command(self) -> int:
        """The pid of the command."""
        return self.wait_for_command()

    def line(self) -> str:
        """Return what the command says next; nothing at the end."""
        while not self._said:
            if not self._take():
                return ""
        return self._said.pop(0)

    def _take(self) -> bool:
        """Read a line; return whether there was one."""
        assert select.select([self._out], [], [], PATIENCE)[0], "nothing was said"
        line = self._out.readline().decode().strip()
        if line.startswith("KEEPER "):
            self.keepers.append(int(line.removeprefix("KEEPER ")))
        elif line.startswith("COMMAND "):
            self.commands.append(int(line.removeprefix("COMMAND ")))
        elif line:
            self._said.append(line)
        return bool(line)

    def wait_for_command(self) -> int:
        """Return the pid of the command, as soon as it has one."""
        while not self.commands:
            assert self._take()
        return self.commands[0]

    def wait_for_keepers(self, count: int) -> int:
        """Return the pid of the newest keeper, as soon as there were so many."""
        while len(self.keepers) < count:
            assert self._take()
        return self.keepers[-1]

    def all_keepers(self) -> list[int]:
        """Return the pids of all keepers that a front has had which is dead."""
        while select.select([self._out], [], [], 0)[0] and self._take():
            pass
        return self.keepers

    def account(self) -> RunAccount:
        """Wait until all is settled; return what the front was told."""
        account = self.inner_account()
        self.process.wait(PATIENCE)
        return account

    def inner_account(self) -> RunAccount:
        """Wait until a run within the run is settled; return what its front was told."""
        while not (line := self.line()).startswith("ACCOUNT "):
            assert line, "there is no account"
        status = self.line()
        assert status.startswith("STATUS ")
        self.status = int(status.removeprefix("STATUS "))
        return RunAccount.from_json(line.removeprefix("ACCOUNT "))

    def wait_for_rows(self, count: int) -> None:
        """Wait until so many things that were made are in the journal, each as what it is."""

        def are_there() -> bool:
            # It grows while it is read, for which readers of the dead are not made.
            with suppress(OSError):
                confirmed = [row for row in self.rows() if row["state"] == "confirmed"]
                return len(confirmed) >= count
            return False

        wait_until(are_there)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of things that are in the journal now."""
        (folder,) = self.state.glob("host-*")
        rows = [json.loads(row) for _, row in read_rows(str(folder))]
        return [row for row in rows if row.get("notice", ["exec"])[0] not in ("exec", "setsid")]

    def wait_for_keeper(self) -> None:
        """Wait until the keeper has ended."""
        wait_for_end(self.keeper)

    def kill(self) -> None:
        """Kill the front, and nothing else."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)


def wait_until(holds: Callable[[], object], what: str = "it never came") -> None:
    """Wait until something holds, which nobody tells of."""
    over = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < over, what
        time.sleep(0.005)


def is_alive(os_pid: int) -> bool:
    """Whether an OS process lives, or any of its threads, by which it may hold a lock still."""
    try:
        pidfd = os.pidfd_open(os_pid)
    except (ProcessLookupError, ValueError):
        return False
    try:
        return not select.select([pidfd], [], [], 0)[0]
    finally:
        os.close(pidfd)


def wait_for_end(*os_pids: int) -> None:
    """Wait until OS processes have ended."""
    wait_until(lambda: not any(map(is_alive, os_pids)), f"of {os_pids}, some live on")
