"""In which descriptors other threads of this OS process are blocked, as the kernel tells.

To wake a thread that is blocked in a socket takes a shutdown(2), a call for each socket. Where
there are many sockets and few threads, it is quicker to ask where the threads are.
"""

from __future__ import annotations

import os
import socket
import threading
from functools import cache
from typing import TYPE_CHECKING, Final

from probate.system import read_proc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: A folder for each thread of this process (proc(5)).
_TASKS: Final = "/proc/self/task"

#: How many sockets are shut down in the time that it takes to ask after one thread.
SOCKETS_PER_THREAD: Final = 12

#: System calls that wait for something else than a file: futex, nanosleep, clock_nanosleep,
#: rt_sigtimedwait, wait4, waitid. Not restart_syscall, which may be a poll.
_ELSEWHERE: Final = {
    "x86_64": frozenset({202, 35, 230, 128, 61, 247}),
    "aarch64": frozenset({98, 101, 115, 137, 260, 95}),
}

#: System calls whose first argument is the one descriptor that they wait for: read, write, readv,
#: writev, connect, accept, accept4, sendto, recvfrom, sendmsg, recvmsg, recvmmsg, sendmmsg.
_IN_ONE: Final = {
    "x86_64": frozenset({0, 1, 19, 20, 42, 43, 288, 44, 45, 46, 47, 299, 307}),
    "aarch64": frozenset({63, 64, 65, 66, 203, 202, 242, 206, 207, 211, 212, 243, 269}),
}


def count_other_threads() -> int | None:
    """How many threads this process has besides the calling one; None if it cannot be told."""
    try:
        # Links of a folder are one for each folder in it, and two more.
        return os.stat(_TASKS).st_nlink - 3  # noqa: PTH116  a tenth of the time
    except OSError:
        return None


def wake(descriptors: Sequence[int]) -> None:
    """Wake whoever is blocked in one of these sockets, at which nobody can get any more.

    That is what makes the kernel's answer last: who is not in one of them now never will be.
    """
    found = _where_blocked()
    to_wake = descriptors if found is None else found.intersection(descriptors)
    if to_wake:
        # By their numbers, which are all that is left of them. Where nothing is connected the
        # kernel wakes whoever waits, and then complains.
        shutdown = _shutdown()
        for descriptor in to_wake:
            shutdown(descriptor, socket.SHUT_RDWR)


@cache
def _shutdown() -> Callable[[int, int], int]:
    """shutdown(2), of a number."""
    import ctypes

    shutdown: Callable[[int, int], int] = ctypes.CDLL(None).shutdown
    return shutdown


def _where_blocked() -> frozenset[int] | None:
    """The descriptors in which other threads are blocked; None if it cannot be told.

    It cannot of a thread that runs, and so may be about to be, nor of one that polls.
    """
    machine = os.uname().machine
    elsewhere, in_one = _ELSEWHERE.get(machine), _IN_ONE.get(machine)
    if elsewhere is None or in_one is None:
        return None
    own = str(threading.get_native_id())
    found: set[int] = set()
    try:
        for task in os.listdir(_TASKS):  # noqa: PTH208  a fraction of the time
            if task == own:
                continue
            words = read_proc(f"{_TASKS}/{task}/syscall").split()
            number = int(words[0])
            if number in in_one:
                found.add(int(words[1], 16))
            elif number not in elsewhere:
                return None
    except (OSError, ValueError):
        # "running"; or it has just ended.
        return None
    return frozenset(found)
