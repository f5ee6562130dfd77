"""The marks of one tree, and how its processes are told by them.

A process has only one parent, the one that it was left with. So all that descends from a tree is
marked, in ways that fork and exec pass on: by numbers that its first process is born with
(threadmarks.py); in the environment, until a program is executed without it; and by a tag in a
resource limit that has had no effect since Linux 2.4, RLIMIT_LOCKS (getrlimit(2)), until a login
resets it.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate.system import tag_for, tag_maker
from probate_processes.procfs import read_of, start_time_of_host
from probate_processes.threadmarks import (
    FIRST_HINT,
    HINTS,
    WIDTH,
    ThreadMarks,
    Worn,
    hint_of,
    slack_of,
    slice_of,
)

if TYPE_CHECKING:
    from probate.system import OsProcess

#: The environment variable that marks what descends from a spawned process.
MARKER: Final = "PROBATE_TREE"

_numbers: Final = itertools.count(1)

#: No number that a thread could give.
UNWORN: Final = Worn(0, 0, 0)


@final
class Mark(NamedTuple):
    """Marks the processes of one tree."""

    #: A word in the marker in the environment.
    token: bytes
    #: The soft limit of RLIMIT_LOCKS.
    tag: int
    #: What the threads of its processes wear.
    worn: Worn

    @classmethod
    def new(cls, thread_marks: ThreadMarks | None = None) -> Mark:
        """Make one that no other tree on this machine has, but for the numbers of threads.

        These are told apart among the children of one host only, and come round: the pair of
        both after 33 million trees.
        """
        host, number = os.getpid(), next(_numbers)
        # Of two hosts, the pids tell them apart; of those who had one pid, their start times.
        started = start_time_of_host(host)
        token = b"%d-%d-%d" % (host, started, number)
        tag = tag_for(host, started, number)
        return cls(token, tag, _worn(host + number, thread_marks))

    def is_worn_by(self, os_pid: int) -> bool:
        """Whether a process, or zombie, has any number of ours."""
        ours = self.worn
        # What is read fastest comes first.
        return (
            (ours.slice != 0 and slice_of(os_pid) == ours.slice)
            or (ours.hint != 0 and hint_of(os_pid) == ours.hint)
            or (ours.slack != 0 and slack_of(os_pid) == ours.slack)
        )


def _worn(number: int, thread_marks: ThreadMarks | None) -> Worn:
    if thread_marks is None:
        return UNWORN
    return Worn(
        slice=thread_marks.slice(number % WIDTH),
        hint=FIRST_HINT + number % HINTS if thread_marks.has_hints else 0,
        slack=1 + number % WIDTH if thread_marks.has_slacks else 0,
    )


def tag_maker_of(host: OsProcess) -> int:
    """As `tag_maker`, of the tags of this very process, should it be a host of its own."""
    return tag_maker(tag_for(host.os_pid, host.start_time))


def tokens_of(os_pid: int) -> frozenset[bytes]:
    """Read what the marker said when a process was started; nothing if that cannot be read."""
    prefix = f"{MARKER}=".encode()
    entries = (read_of(os_pid, "environ") or b"").split(b"\0")
    return frozenset(
        token
        for entry in entries
        if entry.startswith(prefix)
        for token in entry.removeprefix(prefix).split(b":")
    )
