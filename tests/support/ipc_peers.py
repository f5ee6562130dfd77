"""Peers in other OS processes, and sleepers in this one."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

#: read, poll, msgrcv, semop, semtimedop, recvfrom, accept4 on x86-64 (syscall(2)).
_BLOCKING_CALLS = frozenset({"0", "7", "70", "65", "220", "45", "288"})


def await_that(condition: Callable[[], bool]) -> None:
    """Wait, for 5 seconds at most, for something that nothing announces."""
    pause = threading.Event()
    for _ in range(5000):
        if condition():
            return
        pause.wait(0.001)
    pytest.fail("it never came to be")


def await_sleep(task: str | int | None, calls: Collection[str] = _BLOCKING_CALLS) -> None:
    """Wait until a process, or a thread of this one, sleeps in one of the system calls."""
    own = Path(f"/proc/self/task/{task}/syscall")
    path = own if own.exists() else Path(f"/proc/{task}/syscall")
    await_that(lambda: path.read_text().split()[0] in calls)


@contextmanager
def peer(script: str, *args: object, pass_fds: Collection[int] = ()) -> Iterator[Peer]:
    """Run `script` in an interpreter of its own, and wait until it blocks after "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=tuple(pass_fds),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        await_sleep(process.pid)
        yield Peer(process)
    finally:
        process.kill()
        process.communicate()


class Peer:
    """A process that is blocked, and will say why it no longer is."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def said(self) -> str:
        """What it printed when it was woken."""
        out, _ = self._process.communicate(timeout=5)
        return out.strip()
