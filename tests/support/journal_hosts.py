"""Hosts with a journal, in OS processes of their own, that are killed with what they hold."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any, Self, final

from reapers import reapers_of

from probate.journal.folders import HEADER, host_folders, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: Seconds for which anything is waited for, on however busy a machine.
PATIENCE = 30.0

_PRELUDE = """
import os, signal, sys, time
from probate import ProcessManager

def build(**options):
    return ProcessManager.builder().with_journal(sys.argv[1], **options).build()

def say(*words):
    print(*words, flush=True)

"""


@final
class JournalHost:
    """A program that has `build()` and `say()`, with its store in a folder; killed at the end."""

    def __init__(
        self, source: str, state: Path, *arguments: str, by: Sequence[str] = (), **options: Any
    ) -> None:
        """`by` is a command that starts it."""
        self.state = state
        self._said = b""
        program = _PRELUDE + textwrap.dedent(source)
        self.process = subprocess.Popen(
            [*by, sys.executable, "-c", program, str(state), *arguments],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            **options,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def line(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        # Not by its buffer, whose lines select(2) knows nothing of.
        while b"\n" not in self._said:
            assert select.select([self.process.stdout], [], [], PATIENCE)[0], "it says nothing"
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            assert part, "it has ended"
            self._said += part
        line, _, self._said = self._said.partition(b"\n")
        return os.fsdecode(line).strip()

    def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        self.process.kill()
        self.process.wait(PATIENCE)

    @property
    def folder(self) -> Path:
        """The folder of its store."""
        found = [
            each
            for each in host_folders(str(self.state))
            if read_json(each / HEADER)["pid"] == self.process.pid
        ]
        assert len(found) == 1
        return found[0]


def reaper_of(host: int) -> int:
    """The pid of the reaper that watches a host."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if len(found := reapers_of(host)) == 1:
            return found.pop()
        time.sleep(0.01)
    raise AssertionError("no reaper watches it")


def wait_until_gone(*paths: Path | str) -> None:
    """Wait until nothing is at these paths any more."""
    wait_while(lambda: [path for path in paths if os.path.lexists(path)])


def kill_all(*os_pids: int) -> None:
    """SIGKILL to each, at once, and wait until they have exited: all come of the test."""
    pidfds = [os.pidfd_open(os_pid) for os_pid in os_pids]
    for pidfd in pidfds:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], PATIENCE)[0]
        os.close(pidfd)


def wait_while(condition: Callable[[], object]) -> None:
    """Wait until a condition holds no more."""
    deadline = time.monotonic() + PATIENCE
    while left := condition():
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.005)
