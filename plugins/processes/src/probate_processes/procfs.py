"""What the kernel tells of processes and their descent (proc(5)); processes pinned."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from typing import TYPE_CHECKING, NamedTuple, Self, final

from probate.system import OsProcess, read_proc, start_time_of, stat_of
from probate_processes.errors import ForeignProcError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Pinned processes, zombies included, by pid.
Members = dict[int, OsProcess]

#: Where the flags and the start time stand in /proc/PID/stat, after the name.
_FLAGS, _START_TIME = 6, 19


@final
class Descent(NamedTuple):
    """Tells where a process comes from, and whether it is a zombie."""

    is_zombie: bool
    parent: int
    session: int
    #: Those of the kernel (linux/sched.h).
    flags: int
    #: In clock ticks since boot.
    start_time: int

    @classmethod
    def of(cls, os_pid: int) -> Self:
        """Look. Raises ProcessLookupError."""
        fields = stat_of(os_pid)
        return cls(
            fields[0] in (b"Z", b"X"),
            int(fields[1]),
            int(fields[3]),
            int(fields[_FLAGS]),
            int(fields[_START_TIME]),
        )


def children_of(os_pid: int) -> list[int]:
    """List the children of all threads of a process; of one that is gone, none.

    Reliable only while the process does not fork or reap (proc(5)): whoever needs all of them
    looks until there are no more.
    """
    found: list[int] = []
    for words in children_by_thread(os_pid).values():
        found += map(int, words.split())
    return found


def children_by_thread(os_pid: int) -> dict[str, bytes]:
    """List the children of each thread that has any, oldest first, each with a space after it."""
    found: dict[str, bytes] = {}
    # It may be gone at any moment, or some of its threads.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{os_pid}/task"):  # noqa: PTH208  paths take longer
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = read_proc(f"/proc/{os_pid}/task/{thread}/children")
                if words:
                    found[thread] = words
    return found


def last_os_pid() -> int | None:
    """Read which pid was given out last, to a process or thread; None if that cannot be read."""
    try:
        return int(read_proc("/proc/loadavg").split()[4])
    except OSError:
        return None


def is_exhaustion(error: OSError) -> bool:
    """Whether no descriptor was left to look with, which tells nothing of what was looked for."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def cgroup_of(os_pid: int) -> str | None:
    """Read the path of the cgroup v2 of a process, or zombie; None if that cannot be read."""
    text = read_of(os_pid, "cgroup")
    for line in () if text is None else text.splitlines():
        if line.startswith(b"0::"):
            return os.fsdecode(line.removeprefix(b"0::").removesuffix(b" (deleted)"))
    return None


@functools.lru_cache(maxsize=1)
def start_time_of_host(host: int) -> int:
    """Read when this process, of this pid, was started: once, as it stays so."""
    return start_time_of(host)


def check_proc() -> None:
    """See that /proc is that of this process's pid namespace. Raises ForeignProcError."""
    try:
        is_ours = os.readlink("/proc/self") == str(os.getpid())
    except FileNotFoundError:
        is_ours = False
    if not is_ours:
        raise ForeignProcError


def pin(os_pid: int) -> OsProcess | None:
    """Pin a process; None if it is gone."""
    try:
        return OsProcess.open(os_pid)
    except ProcessLookupError:
        return None


def pin_if(os_pid: int, members: Members, belongs: Callable[[OsProcess], bool]) -> OsProcess | None:
    """Pin a process and add it, if it belongs and is not known; return it then."""
    known = members.get(os_pid)
    if known is not None:
        if known.is_there():
            return None
        # Reaped, and its pid is somebody else's. Not closed: it may be watched still.
        del members[os_pid]
    process = pin(os_pid)
    if process is None:
        return None
    # Judged while pinned, and then seen to be there still: it was no other that was judged.
    try:
        is_member = belongs(process) and process.is_there()
    except ProcessLookupError:
        is_member = False
    except BaseException:
        process.close()
        raise
    if not is_member:
        process.close()
        return None
    members[os_pid] = process
    return process


def close_all(members: Members) -> None:
    """Let go of all; the processes are left as they are."""
    for process in members.values():
        process.close()
    members.clear()


def is_ancestor(os_pid: int) -> bool:
    """Whether a process is this one, or one that this one descends from."""
    return _descends(os.getpid(), os_pid)


def is_descendant(os_pid: int) -> bool:
    """Whether a process descends from this one, as far as its ancestors are still there."""
    return os_pid != os.getpid() and _descends(os_pid, os.getpid())


def _descends(os_pid: int, ancestor: int) -> bool:
    while os_pid > 0:
        if os_pid == ancestor:
            return True
        try:
            os_pid = Descent.of(os_pid).parent
        except ProcessLookupError:
            break
    return False


def read_of(os_pid: int, name: str) -> bytes | None:
    """Read a file of a process; None if there is none, or it is not ours to read."""
    try:
        return read_proc(f"/proc/{os_pid}/{name}")
    except OSError as error:
        if is_exhaustion(error):
            raise
        return None


def folder_of(os_pid: int) -> str:
    """Find where /proc tells of the memory and descriptors of a living process.

    If its main thread has ended (pthread_exit(3)), that is at another thread.
    """
    folder = f"/proc/{os_pid}"
    with contextlib.suppress(OSError):
        if stat_of(os_pid)[0] != b"Z":
            return folder
        for thread in os.listdir(f"{folder}/task"):  # noqa: PTH208  paths take longer
            if int(thread) != os_pid:
                return f"{folder}/task/{thread}"
    return folder
