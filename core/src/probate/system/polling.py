"""Who polls a number: epoll instances, as the kernel tells, and the objects above them.

An event loop, or a selector, keeps a map from number to callback of its own. If a number is closed
beneath it, the next file with that number is taken for the old one (epoll(7), Q6).
"""

from __future__ import annotations

import os
import re
import stat
import time
from typing import TYPE_CHECKING, Any, Final

from probate.system.allobjects import heap
from probate.system.loops import held_up_loop, running_loop
from probate.system.osprocess import read_proc
from probate.system.selecting import without_epoll

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: What the kernel calls an epoll instance (proc(5)).
_EPOLL: Final = "anon_inode:[eventpoll]"

_WATCHED: Final = rb"(?m)^tfd:\s+(\d+)"

#: Where more numbers than these are open, a look at all of them is not taken again before this many
#: times as long as it took is over: one in twenty seconds of a thread at most.
_FEW: Final = 1000
_REST: Final = 20


class _LastLook:
    """The epoll instances that were found last, among how many, when, and how long it took."""

    epolls: tuple[int, ...] = ()
    among = 0
    ended = 0.0
    took = 0.0


def epolls(known: Collection[int] = ()) -> set[int]:
    """The numbers of this process's epoll instances; `known` need not be looked at.

    Where there are so many numbers that a look takes long, one that has just been made may be
    missed, unless it is that of a loop that runs here.
    """
    found = {number for loop in (running_loop(), held_up_loop()) if (number := epoll_of(loop))}
    started = time.perf_counter()
    if _LastLook.among > _FEW and started < _LastLook.ended + _REST * _LastLook.took:
        return found.union(filter(_is_epoll, _LastLook.epolls))
    names = os.listdir("/proc/self/fd")  # noqa: PTH208  a fraction of the time
    for number in map(int, names):
        if number not in known and _is_epoll(number):
            found.add(number)
    _LastLook.epolls = tuple(found)
    _LastLook.among = len(names)
    _LastLook.ended = time.perf_counter()
    _LastLook.took = _LastLook.ended - started
    return found


def polled(numbers: Collection[int]) -> dict[int, list[int]]:
    """Which of these numbers are watched, each with the epoll instances that do.

    By none, if only a selector has it that polls without one: what is not in here nobody watches.
    """
    found: dict[int, list[int]] = {
        number: [] for each in without_epoll() for number in _numbers_in(each, numbers)
    }
    try:
        watched = {each: read_proc(f"/proc/self/fdinfo/{each}") for each in epolls(numbers)}
    except OSError:
        # There is no descriptor left to look with (EMFILE), or one was closed just now.
        watched = {}
        for each in heap.instances(lambda cls: kind_of(cls) == "selector"):
            if (instance := epoll_of(each)) is not None:
                for number in _numbers_in(each, numbers):
                    found.setdefault(number, []).append(instance)
    for epoll, text in watched.items():
        for number in map(int, re.findall(_WATCHED, text)):
            if number in numbers:
                found.setdefault(number, []).append(epoll)
    return found


def objects_above(
    number: int,
    instances: Collection[int],
    known_loops: Iterable[Any],
    *,
    is_in_poll: bool = False,
) -> list[Any]:
    """The loops, selectors and runs of trio that watch a number, through these epoll instances.

    Those that are not known already are looked for among all objects: some milliseconds, where
    there are many. What is not found has no object that we know. `is_in_poll` says that a thread
    polls it without an epoll instance, so that it may be a selector of any class that does.
    """
    above = [loop for loop in known_loops if epoll_of(loop) in instances]
    simple = [each for each in without_epoll() if _numbers_in(each, (number,))]
    if {epoll_of(each) for each in above} >= set(instances) and (simple or not is_in_poll):
        return above + simple
    loops = [*above]
    selectors = []
    for each in heap.instances(lambda cls: kind_of(cls) != ""):
        kind = kind_of(type(each))
        if kind == "loop":
            if each not in loops and epoll_of(each) in instances:
                loops.append(each)
        elif kind == "selector" and _numbers_in(each, (number,)):
            selectors.append(each)
    theirs = [getattr(loop, "_selector", None) for loop in loops]
    return loops + [each for each in selectors if not any(each is other for other in theirs)]


def epoll_of(poller: Any) -> int | None:
    """The epoll instance of an event loop, a selector, or a run of trio; None without one."""
    try:
        if (selector := getattr(poller, "_selector", None)) is not None:
            number = selector.fileno()
        elif (backend := getattr(poller, "_get_backend_id", None)) is not None:
            number = backend()
        elif (manager := getattr(poller, "io_manager", None)) is not None:
            number = manager._epoll.fileno()  # noqa: SLF001  trio shows it nowhere else
        else:
            number = poller.fileno()
    except (AttributeError, ValueError, OSError, RuntimeError, TypeError):
        return None
    return number if isinstance(number, int) else None


def kind_of(cls: type) -> str:
    """Tell what instances of a class are by what they can do: "loop", "selector", or neither."""
    names = {name for each in cls.__mro__ for name in each.__dict__}
    if {"call_soon_threadsafe", "add_reader", "run_forever"} <= names:
        return "loop"
    if cls.__name__ == "Runner" and str(cls.__module__).startswith("trio."):
        return "loop"
    return "selector" if {"get_map", "unregister", "select"} <= names else ""


def _numbers_in(selector: Any, numbers: Collection[int]) -> list[int]:
    """Those of these numbers that a selector has."""
    try:
        known = selector.get_map()
    except (RuntimeError, AttributeError):
        return []
    return [number for number in numbers if number in known] if known else []


def _is_epoll(number: int) -> bool:
    try:
        # The kernel's anonymous inodes alone have no type; asking for a name takes far longer.
        if stat.S_IFMT(os.fstat(number)[0]):
            return False
        return os.readlink(f"/proc/self/fd/{number}") == _EPOLL
    except OSError:
        return False
