"""Which socket a number refers to, and who else has that socket open.

A number that was closed elsewhere is soon another's (open(2)), and shutdown(2) and SO_LINGER act on
the open file description, which a dup, a child or whoever was sent it shares (socket(7), unix(7)).
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Inode and device, which a socket keeps for as long as anybody has it open.
Identity = tuple[int, int]

#: What no number refers to.
NOTHING: Final[Identity] = (-1, -1)


def identify(number: int) -> Identity:
    """Tell what a number refers to now; NOTHING if it is not open."""
    try:
        return os.fstat(number)[1:3]
    except OSError:
        return NOTHING


def sharers_of(number: int) -> str:
    """Say who else has the socket open: this process by another number, or other processes.

    Empty if nobody has. Processes that we may not look into (proc(5)) are taken for strangers.
    """
    inode = identify(number)[0]
    link = f"socket:[{inode}]"
    folder = "/proc/self/fd"
    for other in _listed(folder):
        if other != str(number) and _link(f"{folder}/{other}") == link:
            return f"this process has it open as number {other}, too"
    own = str(os.getpid())
    for process in _listed("/proc"):
        if process.isdigit() and process != own:
            folder = f"/proc/{process}/fd"
            if any(_link(f"{folder}/{other}") == link for other in _listed(folder)):
                return f"process {process} has it open, too"
    return ""


def _listed(folder: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from os.listdir(folder)  # noqa: PTH208  a fraction of the time


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
