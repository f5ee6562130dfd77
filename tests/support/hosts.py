"""Hosts in tests: programs that say when they are ready, get signals, and end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_SUPPORT = Path(__file__).resolve().parent

#: What every script begins with.
PRELUDE = """
import asyncio, atexit, os, signal, sys, threading, time
from plugins_things import ThingResource, orchestrate
from probate import ProcessManager

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def saying(*words):
    return lambda: say(*words)

def build(*plugins, grace=0, deadline=20, signals=()):
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrate(*plugins))
    return builder.with_grace(grace).with_deadline(deadline).with_signals(*signals).build()
"""


class Host:
    """Runs a script in an interpreter of its own, within a time limit."""

    def __init__(
        self,
        source: str,
        *,
        command: Sequence[str] = (),
        options: Sequence[str] = (),
        timeout: float = 30,
    ) -> None:
        self._over = time.monotonic() + timeout
        self._popen = subprocess.Popen(
            [*command, sys.executable, *options, "-c", PRELUDE + source],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_SUPPORT)},
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self._said = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._popen.kill()
        # Whoever it has left behind may have its streams.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.communicate(timeout=1)

    @property
    def lines(self) -> list[str]:
        """What it has said so far."""
        return self._said.decode().splitlines()

    def wait_for(self, start: str, *, sending: int | None = None) -> str:
        """Wait until it says a line that starts so; return the rest of that line.

        Send it a signal meanwhile, now and again.
        """
        assert self._popen.stdout is not None
        while True:
            for line in self._said.decode().splitlines(keepends=True):
                if line.startswith(start) and line.endswith("\n"):
                    return line[len(start) :].strip()
            left = max(0.0, self._over - time.monotonic())
            if sending is not None and left:
                self.send(sending)
                left = min(0.1, left)
            ready, _, _ = select.select([self._popen.stdout], [], [], left)
            piece = os.read(self._popen.stdout.fileno(), 1 << 16) if ready else b""
            self._said += piece
            if not piece and (ready or sending is None or time.monotonic() > self._over):
                rest = self._end()
                pytest.fail(f"never said {start!r}, but {self.lines}; {rest}")

    def send(self, number: int) -> None:
        """Send it a signal, as kill(1) does."""
        os.kill(self.pid, number)

    def end(self) -> tuple[int, list[str], str]:
        """Wait for its end: return code as subprocess puts it, lines, and complaints."""
        errors = self._end()
        assert self._popen.returncode is not None
        return self._popen.returncode, self.lines, errors

    def _end(self) -> str:
        try:
            out, errors = self._popen.communicate(timeout=max(0.1, self._over - time.monotonic()))
        except subprocess.TimeoutExpired:
            # With -X faulthandler it says where each of its threads is.
            self._popen.send_signal(signal.SIGABRT)
            out, errors = b"", b"(somebody it has started has its streams)"
            with contextlib.suppress(subprocess.TimeoutExpired):
                out, errors = self._popen.communicate(timeout=10)
            pytest.fail(f"never ended; said {(self._said + out).decode()!r}, {errors.decode()!r}")
        self._said += out
        return errors.decode()
