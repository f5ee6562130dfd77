"""What the kernel tells of processes and their descent (proc(5)).

A process has only one parent, the one that it was left with. So a tree's processes are marked
twice, in ways that fork and exec pass on: in the environment, from the first moment on; and by
a tag in a resource limit that has had no effect since Linux 2.4, RLIMIT_LOCKS (getrlimit(2)),
which also survives an emptied environment, and can be read of zombies.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import resource
from typing import Final, NamedTuple, Self, final

from probate.system import OsProcess, read_proc, start_time_of, stat_of

#: The environment variable that marks what descends from a spawned process.
MARKER: Final = "PROBATE_TREE"

#: Not among the constants of the module `resource` (asm-generic/resource.h).
_RLIMIT_LOCKS: Final = 10
#: The highest limit that is not "unlimited", with room for arithmetic.
_TAG_MAX: Final = (1 << 62) - 1
#: The lowest bits number the trees of one host; its pid, of 22 bits at most, stands above.
_NUMBER_BITS: Final = 32
_numbers: Final = itertools.count(1)
_TAG: Final = re.compile(rb"^Max file locks +(\d+)", re.MULTILINE)

#: Pinned processes, zombies included, by pid.
Members = dict[int, OsProcess]


@final
class Descent(NamedTuple):
    """Tells where a process comes from, and whether it is a zombie."""

    is_zombie: bool
    parent: int
    session: int

    @classmethod
    def of(cls, os_pid: int) -> Self:
        """Look. Raises ProcessLookupError."""
        state, parent, _, session, *_ = stat_of(os_pid)
        return cls(state in (b"Z", b"X"), int(parent), int(session))


@final
class Lineage(NamedTuple):
    """Shows whom a process descends from, by all but its parent."""

    os_pid: int
    is_zombie: bool
    session: int
    cgroup: str | None
    tag: int | None
    tokens: frozenset[bytes]

    @classmethod
    def of_child(cls, os_pid: int) -> Self | None:
        """Look at a child of this host; None if it is no child of it."""
        try:
            is_zombie, parent, session = Descent.of(os_pid)
        except ProcessLookupError:
            return None
        if parent != os.getpid():
            return None
        shown = cgroup_of(os_pid), tag_of(os_pid), tokens_of(os_pid)
        return cls(os_pid, is_zombie, session, *shown)


@final
class Mark(NamedTuple):
    """Marks the processes of one tree."""

    #: A word in the marker in the environment.
    token: bytes
    #: The soft limit of RLIMIT_LOCKS.
    tag: int

    @classmethod
    def new(cls) -> Self:
        """Make one that no other tree on this machine has."""
        host, number = os.getpid(), next(_numbers)
        # Of two hosts, the pids tell them apart; of those who had one pid, their start times.
        started = start_time_of(host)
        return cls(b"%d-%d-%d" % (host, started, number), _tags_of(host, started) | number)


def is_tag_made_by(tag: int, host: OsProcess) -> bool:
    """Whether a tag is that of a tree which this very process began, as a host of its own."""
    return tag >> _NUMBER_BITS == _tags_of(host.os_pid, host.start_time) >> _NUMBER_BITS


def _tags_of(host: int, started: int) -> int:
    """Compute what all tags have in common that a host gives."""
    return (started << 54 | host << _NUMBER_BITS) & _TAG_MAX


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
    text = _read(os_pid, "cgroup")
    for line in () if text is None else text.splitlines():
        if line.startswith(b"0::"):
            return os.fsdecode(line.removeprefix(b"0::").removesuffix(b" (deleted)"))
    return None


def tokens_of(os_pid: int) -> frozenset[bytes]:
    """Read what the marker said when a process was started; nothing if that cannot be read."""
    prefix = f"{MARKER}=".encode()
    entries = (_read(os_pid, "environ") or b"").split(b"\0")
    return frozenset(
        token
        for entry in entries
        if entry.startswith(prefix)
        for token in entry.removeprefix(prefix).split(b":")
    )


def set_tag(os_pid: int, tag: int) -> None:
    """Tag a process, and all that it forks from now on. It may be gone, or another user's."""
    # ValueError where the hard limit was lowered, below any tag: the marker must do then.
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.prlimit(os_pid, _RLIMIT_LOCKS)
        resource.prlimit(os_pid, _RLIMIT_LOCKS, (tag, hard))


def tag_untagged(os_pid: int, tag: int) -> None:
    """As `set_tag`, unless it has another limit than this host, and so a tag already."""
    with contextlib.suppress(OSError, ValueError):
        soft, _ = resource.prlimit(os_pid, _RLIMIT_LOCKS)
        if soft == resource.prlimit(0, _RLIMIT_LOCKS)[0]:
            set_tag(os_pid, tag)


def tag_of(os_pid: int) -> int | None:
    """Read the tag of a process, or zombie; None if it has none."""
    try:
        soft, _ = resource.prlimit(os_pid, _RLIMIT_LOCKS)
        return None if soft == resource.RLIM_INFINITY else soft
    except ProcessLookupError:
        return None
    except OSError:
        # Another user's, whose limits may be read all the same.
        match = _TAG.search(_read(os_pid, "limits") or b"")
        return None if match is None else int(match[1])


def pin(os_pid: int) -> OsProcess | None:
    """Pin a process; None if it is gone."""
    try:
        return OsProcess.open(os_pid)
    except ProcessLookupError:
        return None


def close_all(members: Members) -> None:
    """Let go of all; the processes are left as they are."""
    for process in members.values():
        process.close()
    members.clear()


def is_ancestor(os_pid: int) -> bool:
    """Whether a process is this one, or one that this one descends from."""
    each = os.getpid()
    while each > 0:
        if each == os_pid:
            return True
        try:
            each = Descent.of(each).parent
        except ProcessLookupError:
            break
    return False


def _read(os_pid: int, name: str) -> bytes | None:
    """A file of a process; None if there is none, or it is not ours to read."""
    try:
        return read_proc(f"/proc/{os_pid}/{name}")
    except OSError as error:
        if is_exhaustion(error):
            raise
        return None
