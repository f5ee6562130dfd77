"""Commands run at a terminal of their own (pty(7)), and what is on its screen in the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

ROWS, COLUMNS = 40, 100


class Shown(NamedTuple):
    """What came of a command."""

    returncode: int
    #: What is to be read on the screen, without colours.
    lines: list[str]
    #: All that was written, with what was overwritten.
    written: str


def run_in_terminal(
    command: Sequence[str | Path],
    *,
    act: Callable[[subprocess.Popen[bytes]], object] | None = None,
    when: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 50,
) -> Shown:
    """Run a command to its end at a terminal of 40 lines; `act` on it once it has written `when`.

    Fails the test if it takes longer than `timeout` seconds.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm", **(env or {})}
    over = time.monotonic() + timeout
    written = b""
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        cwd=cwd,
        env=environment,
    ) as ran:
        os.close(theirs)
        while select.select([ours], [], [], max(0.0, over - time.monotonic()))[0]:
            try:
                written += os.read(ours, 1 << 16)
            except OSError:
                # EIO: the other end has been closed by all who had it.
                break
            if act is not None and when in written.decode(errors="replace"):
                act(ran)
                act = None
        else:
            ran.kill()
            pytest.fail(f"{command} was still at it after {timeout} s: {written!r}")
    os.close(ours)
    text = written.decode()
    return Shown(
        ran.returncode, [_readable(line) for line in text.removesuffix("\r\n").split("\r\n")], text
    )


def _readable(line: str) -> str:
    """A line as it is left: what was erased is gone, and so are colours."""
    *_, left = line.split("\r\x1b[K")
    return re.sub(r"\x1b\[[\d;]*m", "", left).rstrip()
