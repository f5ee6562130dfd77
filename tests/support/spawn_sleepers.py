"""OS processes for tests that do nothing, and are gone when the test is over."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NS_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


@contextlib.contextmanager
def sleeper(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program, by default one that sleeps; killed and reaped in the end."""
    with subprocess.Popen(argv or ("sleep", "1000")) as popen:
        try:
            yield popen
        finally:
            popen.kill()


def wait_for_exit(os_pid: int, timeout: float = 10) -> None:
    """Wait until a process has exited; it may be a zombie then."""
    pidfd = os.pidfd_open(os_pid)
    try:
        readable, _, _ = select.select([pidfd], [], [], timeout)
    finally:
        os.close(pidfd)
    if not readable:
        pytest.fail(f"process {os_pid} still runs after {timeout} s")


@contextlib.contextmanager
def successor(os_pid: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has this pid, which must be free by now; skips where that cannot be had."""
    if not os.access(NS_LAST_PID, os.W_OK):
        pytest.skip("the next pid can be chosen by root only (ns_last_pid, pid_namespaces(7))")
    for _ in range(200):
        NS_LAST_PID.write_text(str(os_pid - 1))
        with sleeper() as popen:
            # Somebody else on this machine may have been faster.
            if popen.pid == os_pid:
                yield popen
                return
    pytest.skip(f"pid {os_pid} was not to be had: too much goes on here")
