"""What the kernel says of OS processes in tests, and how to wait for it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from reapers import command_of, is_helper

from probate import OsProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: In the environment of all that a test starts, so that nothing is left behind.
MARK: Final = "PROBATE_TEST"

SLEEP: Final = ("sleep", "300")


def eventually(condition: Callable[[], object], what: str, *, timeout: float = 15) -> None:
    """Wait for what the kernel announces to nobody; fail the test after `timeout` seconds."""
    over = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > over:
            pytest.fail(f"never: {what}")
        time.sleep(0.002)


def _read(path: str) -> bytes:
    # All processes are looked at, several times in each test: a Path takes three times as long.
    fd = os.open(path, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(fd, 1 << 16), b""))
    finally:
        os.close(fd)


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  as above


def stat(os_pid: int) -> list[str]:
    """/proc/PID/stat from the state on; empty if there is no such process."""
    try:
        return _read(f"/proc/{os_pid}/stat").decode().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def state(os_pid: int) -> str:
    """One letter (proc(5)); Z is a zombie, empty is gone."""
    return (stat(os_pid) or [""])[0]


def parent(os_pid: int) -> int:
    """The parent's pid; 0 if it is gone."""
    found = stat(os_pid)
    return int(found[1]) if found else 0


def lives(os_pid: int) -> bool:
    """Whether it is there, and no zombie."""
    return state(os_pid) not in {"", "Z", "X"}


def is_gone(process: int | OsProcess) -> bool:
    """Whether the kernel has nothing of it, not even a zombie.

    Of a pid, it may be another process that is there by now: pin what cannot be asked at once.
    """
    return not state(process) if isinstance(process, int) else not process.is_there()


def children() -> set[int]:
    """The children of this host, zombies included."""
    return {os_pid for os_pid in _all() if parent(os_pid) == os.getpid()}


def marked(mark: str) -> set[int]:
    """All living processes but this one that were started with `mark` in their environment.

    Without what ends by itself after a host that the test has started: its reaper.
    """
    found = set()
    for os_pid in _all():
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in _read(f"/proc/{os_pid}/environ").split(b"\0"):
                found.add(os_pid)
    found.discard(os.getpid())
    # Those that are just ending last: they have no command line either.
    return {os_pid for os_pid in found if not is_helper(os_pid) and lives(os_pid)}


def kill_all(mark: str) -> dict[int, bytes]:
    """Kill all that is marked, as often as it takes; return who was there at first, and as what."""
    left = marked(mark)
    first = {os_pid: command_of(os_pid) for os_pid in left}
    over = time.monotonic() + 10
    while left and time.monotonic() < over:
        for os_pid in left:
            with contextlib.suppress(ProcessLookupError), OsProcess.open(os_pid) as process:
                process.send_signal(signal.SIGKILL)
                wait_for_exit(process)
        left = marked(mark)
    return first


def wait_for_exit(process: OsProcess, timeout: float = 15) -> None:
    """Wait until a process has exited; fail the test after `timeout` seconds."""
    poll = select.poll()
    poll.register(process.fileno(), select.POLLIN)
    if not poll.poll(timeout * 1000):
        pytest.fail(f"OS process {process.os_pid} did not exit")


#: What other tests have left, for which none here is to be blamed.
left_elsewhere: set[str] = set()


def cgroups() -> set[str]:
    """The cgroups that this host has made and not removed; not those that other tests have left."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        if tail.startswith("cgroup2 "):
            # Those of others come and go meanwhile, which os.walk does not mind.
            for folder, names, _ in os.walk(head.split(" ")[4]):
                ours = [name for name in names if name.startswith(f"probate-{os.getpid()}-")]
                found |= {f"{folder}/{name}" for name in ours}
    return found - left_elsewhere


def cgroup(os_pid: int) -> str:
    """The cgroups of a process, or zombie; empty if it is gone."""
    try:
        return Path(f"/proc/{os_pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_contained(os_pid: int) -> bool:
    """Whether a process, or zombie, is in a cgroup that this host has made."""
    return f"/probate-{os.getpid()}-" in cgroup(os_pid)


def await_containment(os_pid: int) -> None:
    """Wait until a process is in its cgroup, if this host has any: it comes there by and by."""
    if cgroups():
        eventually(lambda: is_contained(os_pid), "it is in its cgroup")


def fds() -> list[int]:
    """The open descriptors of this host."""
    return sorted(int(path.name) for path in Path("/proc/self/fd").iterdir())


def words(path: Path, count: int = 1) -> list[str]:
    """Wait until workers have written so many lines into a file; return them."""

    def complete() -> bool:
        return path.exists() and path.read_text().count("\n") >= count

    eventually(complete, f"{count} lines in {path.name}")
    return path.read_text().split()


def pids_in(path: Path, count: int = 1) -> list[int]:
    """As `words`, of pids."""
    return [int(word) for word in words(path, count)]


def none_of(processes: Iterable[int | OsProcess]) -> bool:
    """Whether the kernel has nothing of any of these."""
    return all(is_gone(process) for process in processes)


@contextlib.contextmanager
def in_thread(function: Callable[[], object]) -> Iterator[None]:
    """Have a call made beside what is done within, and wait for its end."""
    thread = threading.Thread(target=function)
    thread.start()
    try:
        yield
    finally:
        thread.join(15)
