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
def sleeper(*argv: str, own_session: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A program, by default one that sleeps; killed and reaped in the end."""
    command = argv or ("sleep", "1000")
    with subprocess.Popen(command, start_new_session=own_session) as popen:
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
def next_os_pid(os_pid: int) -> Iterator[None]:
    """Who is started in here has this pid, unless somebody else is faster; or skip the test.

    Afterwards the kernel goes on where it was: other tests watch pids that have just come free.
    """
    try:
        last = NS_LAST_PID.read_text()
        NS_LAST_PID.write_text(str(os_pid - 1))
    except OSError as error:
        pytest.skip(f"the next pid can be chosen by root only (pid_namespaces(7)): {error}")
    try:
        yield
    finally:
        NS_LAST_PID.write_text(last)


@contextlib.contextmanager
def successor(os_pid: int, *, own_session: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has this pid, which must be free by now; skips where that cannot be had."""
    for _ in range(200):
        with contextlib.ExitStack() as stack:
            with next_os_pid(os_pid):
                popen = stack.enter_context(sleeper(own_session=own_session))
            if popen.pid == os_pid:
                yield popen
                return
    pytest.skip(f"pid {os_pid} was not to be had: too much goes on here")
