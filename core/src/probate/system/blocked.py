"""In which descriptors other threads of this OS process are blocked, as the kernel tells.

A thread that is blocked in a socket or pipe keeps it open, and would wait for ever. That takes a
look at where each thread is (proc(5), /proc/PID/task/TID/syscall).
"""

from __future__ import annotations

import os
import struct
import threading
from functools import partial
from typing import Final, NamedTuple, final

from probate.system.making import using
from probate.system.osprocess import read_proc

#: A folder for each thread of this process (proc(5)).
_TASKS: Final = "/proc/self/task"

#: How often a thread that just runs is looked at again; it is in no socket then.
_LOOKS: Final = 20

#: System calls whose first argument is the one descriptor that they wait for: read, write, readv,
#: writev, connect, accept, accept4, sendto, recvfrom, sendmsg, recvmsg, recvmmsg, sendmmsg,
#: sendfile, epoll_wait, epoll_pwait, epoll_pwait2.
_IN_ONE: Final = {
    "x86_64": frozenset({0, 1, 19, 20, 42, 43, 288, 44, 45, 46, 47, 299, 307, 40, 232, 281, 441}),
    "aarch64": frozenset(
        {63, 64, 65, 66, 203, 202, 242, 206, 207, 211, 212, 243, 269, 71, 22, 441}
    ),
}

#: poll and ppoll, whose first argument is where in memory an array of descriptors is.
_IN_POLL: Final = {"x86_64": frozenset({7, 271}), "aarch64": frozenset({73})}

#: select and pselect6, whose next three arguments are where sets of descriptors are.
_IN_SELECT: Final = {"x86_64": frozenset({23, 270}), "aarch64": frozenset({72})}

#: More than Python's own callers ask for at once are not looked through.
_POLLED_MAX: Final = 100_000


def has_other_threads() -> bool:
    """Whether this process has any thread besides the calling one; True if it cannot be told."""
    try:
        # Links of a folder are one for each folder in it, and two more.
        return os.stat(_TASKS).st_nlink != 3  # noqa: PTH116  a tenth of the time
    except OSError:
        return True


@final
class Blocked(NamedTuple):
    """Descriptors that other threads wait for."""

    #: In a call that waits for this one alone: recv, accept.
    inside: frozenset[int]
    #: In poll(2) or select(2). Epoll instances are not looked into.
    in_poll: frozenset[int]
    #: Whether a thread was just running, which may be on its way into a call, or out of one.
    is_any_running: bool = False


#: Of a process with one thread.
NOWHERE: Final = Blocked(frozenset(), frozenset())


def blocked_in() -> Blocked | None:
    """The descriptors that other threads wait for; None if it cannot be told."""
    if not has_other_threads():
        return NOWHERE
    machine = os.uname().machine
    if machine not in _IN_ONE:
        return None
    own = str(threading.get_native_id())
    inside: set[int] = set()
    in_poll: set[int] = set()
    is_any_running = False
    try:
        for task in os.listdir(_TASKS):  # noqa: PTH208  a fraction of the time
            if task != own:
                found = _waited_for(task, machine)
                is_any_running |= found is None
                inside |= found[0] if found else set()
                in_poll |= found[1] if found else set()
    except OSError:
        return None
    return Blocked(frozenset(inside), frozenset(in_poll), is_any_running)


def _waited_for(task: str, machine: str) -> tuple[set[int], set[int]] | None:
    """What a thread waits for alone, and in poll(2) or select(2); None if it just runs."""
    for _ in range(_LOOKS):
        try:
            words = read_proc(f"{_TASKS}/{task}/syscall").split()
        except (FileNotFoundError, ProcessLookupError):
            # It has just ended.
            return set(), set()
        if words[0] == b"running":
            os.sched_yield()
            continue
        number = int(words[0])
        if number in _IN_ONE[machine]:
            return {int(words[1], 16)}, set()
        if number in _IN_POLL[machine]:
            return set(), _polled(int(words[1], 16), int(words[2], 16))
        if number in _IN_SELECT[machine]:
            return set(), _selected(int(words[1], 16), [int(word, 16) for word in words[2:5]])
        return set(), set()
    return None


def _polled(address: int, count: int) -> set[int]:
    """Those in an array of `struct pollfd` (poll(2))."""
    if count > _POLLED_MAX:
        return set()
    found = _memory(address, count * 8)
    return {fd for fd, _, _ in struct.iter_unpack("=ihh", found[: len(found) // 8 * 8])}


def _selected(count: int, addresses: list[int]) -> set[int]:
    """Those in sets of bits (select(2))."""
    found: set[int] = set()
    for address in addresses:
        bits = int.from_bytes(_memory(address, (count + 7) // 8) if address else b"", "little")
        found.update(number for number in range(count) if bits >> number & 1)
    return found


def _memory(address: int, length: int) -> bytes:
    """Read this process's own memory by way of the kernel: what has gone is an error."""
    memory = partial(os.open, "/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return using(memory, lambda fd: os.pread(fd, length, address))
    except OSError:
        # The thread has gone on meanwhile.
        return b""
