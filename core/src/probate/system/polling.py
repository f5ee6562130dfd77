"""Who polls a number: epoll instances, as the kernel tells, and the objects above them.

An event loop, or a selector, keeps a map from number to callback of its own. If a number is closed
beneath it, the next file with that number is taken for the old one (epoll(7), Q6).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate.system.loops import call_on_loop, held_up_loop, running_loop
from probate.system.osprocess import read_proc

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: What the kernel calls an epoll instance (proc(5)).
_EPOLL: Final = "anon_inode:[eventpoll]"

_WATCHED: Final = re.compile(rb"^tfd:\s+(\d+)", re.MULTILINE)

#: Where more numbers than these are open, a look at all of them is not taken again before this many
#: times as long as it took is over: one in twenty seconds of a thread at most.
_FEW: Final = 1000
_REST: Final = 20


#: Seconds that another thread's loop is waited for, where that holds up no loop here.
_TURN: Final = 0.25


class _LastLook:
    """The epoll instances that were found last, among how many, when, and how long it took."""

    epolls: tuple[int, ...] = ()
    among = 0
    ended = 0.0
    took = 0.0


def epolls(known: Collection[int] = ()) -> tuple[int, ...]:
    """The numbers of this process's epoll instances; `known` need not be looked at.

    Where there are so many numbers that a look takes long, one that has just been made may be
    missed.
    """
    started = time.perf_counter()
    if _LastLook.among > _FEW and started < _LastLook.ended + _REST * _LastLook.took:
        return tuple(number for number in _LastLook.epolls if _is_epoll(number))
    found = []
    names = os.listdir("/proc/self/fd")  # noqa: PTH208  a fraction of the time
    for name in names:
        number = int(name)
        if number not in known and _is_epoll(number):
            found.append(number)
    _LastLook.epolls = tuple(found)
    _LastLook.among = len(names)
    _LastLook.ended = time.perf_counter()
    _LastLook.took = _LastLook.ended - started
    return _LastLook.epolls


def polled(numbers: Collection[int]) -> dict[int, list[int]]:
    """Which of these numbers are watched, each with the epoll instances that do."""
    found: dict[int, list[int]] = {}
    try:
        instances = epolls(numbers)
        watched = {each: read_proc(f"/proc/self/fdinfo/{each}") for each in instances}
    except OSError:
        # There is no descriptor left to look with (EMFILE), or one was closed just now.
        return _polled_by_selectors(numbers)
    for epoll, text in watched.items():
        for number in map(int, _WATCHED.findall(text)):
            if number in numbers:
                found.setdefault(number, []).append(epoll)
    return found


def _polled_by_selectors(numbers: Collection[int]) -> dict[int, list[int]]:
    """As `polled`, by the word of all selectors that there are: bare epoll instances have none."""
    found: dict[int, list[int]] = {}
    for each in gc.get_objects():
        if _kind_of(type(each)) == "selector" and (instance := epoll_of(each)) is not None:
            for number in set(numbers).intersection(_map_of(each) or ()):
                found.setdefault(number, []).append(instance)
    return found


def objects_above(
    number: int,
    instances: Collection[int],
    known_loops: Iterable[Any],
    *,
    without_epoll: bool = False,
) -> list[Any]:
    """The loops, selectors and runs of trio that watch a number through these epoll instances.

    Those that are not known already are looked for among all objects: some milliseconds, where
    there are many. What is not found has no object that we know.
    """
    above = [loop for loop in known_loops if epoll_of(loop) in instances]
    if {epoll_of(each) for each in above} >= set(instances) and not without_epoll:
        return above
    loops = [*above]
    selectors = []
    kinds: dict[type, str] = {}
    for each in gc.get_objects():
        cls = type(each)
        if (kind := kinds.get(cls)) is None:
            kind = kinds[cls] = _kind_of(cls)
        if kind == "loop":
            if each not in loops and epoll_of(each) in instances:
                loops.append(each)
        elif kind == "selector" and number in (_map_of(each) or ()):
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


@final
class LetGo(NamedTuple):
    """What came of having those who poll a number let go of it."""

    #: Who polls it still, and what is to be done about it; empty if nobody does.
    by: str = ""
    #: Bytes that a transport had yet to write.
    lost: int = 0


def let_go(number: int, known_loops: Iterable[Any] = ()) -> LetGo:
    """Have event loops and selectors poll a number no more.

    Transports are aborted, which tells their protocols, and with them whoever reads or writes a
    stream. Waits for a turn of a loop on another thread, unless that would hold up a loop here.
    """
    instances = polled({number}).get(number, ())
    if not instances:
        return LetGo()
    lost: list[int] = []
    waiting: list[concurrent.futures.Future[None]] = []
    here = [running_loop(), held_up_loop()]
    pollers = objects_above(number, instances, known_loops)
    for each in pollers:
        if hasattr(each, "unregister"):
            with contextlib.suppress(KeyError, ValueError, OSError):
                each.unregister(number)
        elif not hasattr(each, "remove_reader"):
            continue
        elif each in here or not each.is_running():
            # Here, or where nothing moves before we are done.
            _drop(each, number, lost)
        elif (done := call_on_loop(each, partial(_drop, each, number, lost))) is not None:
            waiting.append(done)
    if waiting and running_loop() is None:
        concurrent.futures.wait(waiting, _TURN)
    left = polled({number}).get(number, ())
    if not left:
        by = ""
    elif set(left) <= {epoll_of(each) for each in pollers}:
        by = "polled by an event loop, which has not let go of it yet"
    else:
        by = (
            f"polled by epoll instance {left[0]} of this process, of which no loop or selector is "
            "known: unregister it there"
        )
    return LetGo(by, sum(lost))


def _drop(loop: Any, number: int, lost: list[int]) -> None:
    """On its own loop: poll a number no more, and abort the transport that does."""
    try:
        data = loop._selector.get_map()[number].data  # noqa: SLF001  as asyncio has it
    except (KeyError, AttributeError, TypeError, RuntimeError):
        data = ()
    for handle in data if isinstance(data, tuple) else ():
        owner: Any = getattr(getattr(handle, "_callback", None), "__self__", None)
        if hasattr(owner, "get_extra_info") and hasattr(owner, "close") and not owner.is_closing():
            if hasattr(owner, "get_write_buffer_size"):
                lost.append(owner.get_write_buffer_size())
            getattr(owner, "abort", owner.close)()
    loop.remove_reader(number)
    loop.remove_writer(number)


def _kind_of(cls: type) -> str:
    names = {name for each in cls.__mro__ for name in each.__dict__}
    if {"call_soon_threadsafe", "add_reader", "run_forever"} <= names:
        return "loop"
    if cls.__name__ == "Runner" and str(cls.__module__).startswith("trio."):
        return "loop"
    return "selector" if {"get_map", "unregister", "select"} <= names else ""


def _map_of(selector: Any) -> Any:
    try:
        return selector.get_map()
    except (RuntimeError, AttributeError):
        return None


def _is_epoll(number: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{number}") == _EPOLL
    except OSError:
        return False
