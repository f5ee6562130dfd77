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
from pathlib import Path
from typing import Final, NamedTuple, Self, final

from probate import OsProcess
from probate.process.osprocess import start_time_of, stat_of

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


@final
class Descent(NamedTuple):
    """Where a process comes from."""

    is_zombie: bool
    parent: int
    session: int

    @classmethod
    def of(cls, os_pid: int) -> Self:
        """Look. Raises ProcessLookupError."""
        state, parent, _, session, *_ = stat_of(os_pid)
        return cls(state in (b"Z", b"X"), int(parent), int(session))


@final
class Mark(NamedTuple):
    """What the processes of one tree are marked with."""

    #: A word in the marker in the environment.
    token: str
    #: The soft limit of RLIMIT_LOCKS.
    tag: int

    @classmethod
    def new(cls) -> Self:
        """One that no other tree on this machine has."""
        host, number = os.getpid(), next(_numbers)
        # Of two hosts, the pids tell them apart; of those who had one pid, their start times.
        started = start_time_of(host)
        return cls(f"{host}-{started}-{number}", _tags_of(host, started) | number)


def is_tag_made_by(tag: int, host: OsProcess) -> bool:
    """Whether a tag is that of a tree which this very process began, as a host of its own."""
    return tag >> _NUMBER_BITS == _tags_of(host.os_pid, host.start_time) >> _NUMBER_BITS


def _tags_of(host: int, started: int) -> int:
    """What all tags have in common that a host gives."""
    return (started << 54 | host << _NUMBER_BITS) & _TAG_MAX


def children_of(os_pid: int) -> list[int]:
    """The children of all threads of a process; of one that is gone, none.

    Reliable only while the process does not fork or reap (proc(5)): whoever needs all of them
    looks until there are no more.
    """
    found: list[int] = []
    try:
        for task in Path(f"/proc/{os_pid}/task").iterdir():
            try:
                found += map(int, (task / "children").read_bytes().split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def is_exhaustion(error: OSError) -> bool:
    """Whether no descriptor was left to look with, which tells nothing of what was looked for."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def is_marked(os_pid: int, token: str) -> bool:
    """Whether a process was started with `token` in its marker; False if that cannot be read."""
    try:
        environment = Path(f"/proc/{os_pid}/environ").read_bytes()
    except OSError as error:
        if is_exhaustion(error):
            raise
        return False
    prefix = f"{MARKER}=".encode()
    return any(
        token.encode() in entry.removeprefix(prefix).split(b":")
        for entry in environment.split(b"\0")
        if entry.startswith(prefix)
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
    """The tag of a process, or zombie; None if it has none."""
    try:
        match = _TAG.search(Path(f"/proc/{os_pid}/limits").read_bytes())
    except OSError as error:
        if is_exhaustion(error):
            raise
        return None
    return None if match is None else int(match[1])


def pin(os_pid: int) -> OsProcess | None:
    """Pin a process; None if it is gone."""
    try:
        return OsProcess.open(os_pid)
    except ProcessLookupError:
        return None


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
