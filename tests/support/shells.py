"""An interactive shell at a terminal of its own, driven as a user would: typed to, and read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Final, Self, final

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: What the shell prints when it waits for a line.
PROMPT: Final = "ready> "

CTRL_C: Final = "\x03"
CTRL_D: Final = "\x04"
CTRL_Z: Final = "\x1a"
CTRL_BACKSLASH: Final = "\x1c"

#: Seconds that anything may take on a busy machine.
_PATIENCE: Final = 30.0


@final
class Shell:
    """A shell with job control, the leader of its session; all of it is gone in the end."""

    def __init__(self, *argv: str, cwd: Path, env: Mapping[str, str]) -> None:
        self.terminal, theirs = pty.openpty()
        self.resize(40, 100)
        self.shell = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env={**os.environ, "TERM": "xterm", "PS1": PROMPT, **env},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  no threads
        )
        os.close(theirs)
        #: What was written and not yet waited for.
        self._unread = ""
        self.until(PROMPT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        for os_pid in _session(self.shell.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(os_pid, signal.SIGKILL)
        self.shell.kill()
        self.shell.wait()

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.terminal, text.encode())

    def until(self, text: str) -> str:
        """Wait for what is written on the terminal; return what came before it."""
        over = time.monotonic() + _PATIENCE
        while text not in self._unread:
            if not select.select([self.terminal], [], [], max(0.0, over - time.monotonic()))[0]:
                pytest.fail(f"{text!r} was never written, but {self._unread!r}")
            try:
                self._unread += os.read(self.terminal, 1 << 16).decode(errors="replace")
            except OSError:
                pytest.fail(f"{text!r} was never written, but {self._unread!r} and the end")
        before, _, self._unread = self._unread.partition(text)
        return before

    def run(self, line: str) -> str:
        """Type a line and wait for the next prompt; return what the line has written."""
        self.type(f"{line}\n")
        self.until("\n")
        return self.until(PROMPT).replace("\r", "")

    def start(self, line: str, *, before: str = "") -> int:
        """Type a line whose program says `looking PID`, `before` that; return the pid."""
        self.type(f"{line}\n")
        found = None
        while found is None:
            # Not the line itself, as the terminal shows it.
            self.until(f"{before}looking ")
            found = re.match(r"\d+", self.until("\n" if not before else "<"))
        return int(found[0])

    def status(self) -> int:
        """Return the exit status of the last line."""
        found = re.search(r"=(\d+)=", self.run("echo =$?="))
        assert found is not None
        return int(found[1])

    def modes(self) -> list[object]:
        """Return the modes of the terminal (termios(3))."""
        return termios.tcgetattr(self.terminal)

    def resize(self, rows: int, columns: int) -> None:
        """Make the terminal so large."""
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def hang_up(self) -> None:
        """Close the terminal, as its window would. Idempotent."""
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1


def _session(leader: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208  numbers
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(name)) == leader:
                found.append(int(name))
    return found
