"""What the kernel tells of processes and their descent (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple, Self, final

from probate import OsProcess
from probate.process.osprocess import stat_of

#: The environment variable that marks what descends from a spawned process.
MARKER: Final = "PROBATE_TREE"


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


def is_marked(os_pid: int, token: str) -> bool:
    """Whether a process was started with `token` in its marker; False if that cannot be read."""
    try:
        environment = Path(f"/proc/{os_pid}/environ").read_bytes()
    except OSError:
        return False
    prefix = f"{MARKER}=".encode()
    return any(
        token.encode() in entry.removeprefix(prefix).split(b":")
        for entry in environment.split(b"\0")
        if entry.startswith(prefix)
    )


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
