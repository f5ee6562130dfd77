"""In which descriptors other threads of this OS process are blocked, as the kernel tells.

To wake a thread that is blocked in a socket takes a shutdown(2), a call for each socket. Where
there are many sockets and few threads, it is quicker to ask where the threads are.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

#: A folder for each thread of this process (proc(5)).
_TASKS: Final = "/proc/self/task"

#: How many sockets are shut down in the time that it takes to ask after one thread.
SOCKETS_PER_THREAD: Final = 12

#: System calls that wait for something else than a file: futex, nanosleep, clock_nanosleep,
#: rt_sigtimedwait, wait4, waitid, restart_syscall.
_ELSEWHERE: Final = {
    "x86_64": frozenset({202, 35, 230, 128, 61, 247, 219}),
    "aarch64": frozenset({98, 101, 115, 137, 260, 95, 128}),
}

#: System calls whose first argument is the one descriptor that they wait for: read, write, readv,
#: writev, connect, accept, accept4, sendto, recvfrom, sendmsg, recvmsg, recvmmsg, sendmmsg.
_IN_ONE: Final = {
    "x86_64": frozenset({0, 1, 19, 20, 42, 43, 288, 44, 45, 46, 47, 299, 307}),
    "aarch64": frozenset({63, 64, 65, 66, 203, 202, 242, 206, 207, 211, 212, 243, 269}),
}


def thread_count() -> int:
    """How many threads this process has, ours included. Raises OSError without /proc."""
    return os.stat(_TASKS).st_nlink - 2  # noqa: PTH116  a tenth of the time


def where_blocked() -> frozenset[int] | None:
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
            words = Path(_TASKS, task, "syscall").read_bytes().split()
            number = int(words[0])
            if number in in_one:
                found.add(int(words[1], 16))
            elif number not in elsewhere:
                return None
    except (OSError, ValueError):
        # "running"; or it has just ended.
        return None
    return frozenset(found)
