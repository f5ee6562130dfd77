"""Having those who poll a number let go of it, each on the thread where that may be done."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import re
import select
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate.errors import BusyResourceError, ReleaseError
from probate.outcome import Outcome
from probate.system.allobjects import heap
from probate.system.blocked import blocked_in
from probate.system.future import Future
from probate.system.loops import call_on_loop, held_up_loop, running_loop
from probate.system.osprocess import read_proc
from probate.system.polling import epoll_of, objects_above, polled
from probate.system.wakeup import give_up_wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

#: Seconds that another thread is waited for, where that holds up no event loop here.
TURN: Final = 0.25

#: Seconds that a thread which was woken has to leave epoll_wait(2), and between two looks.
_TO_LEAVE: Final = 1.0
_LOOK_EVERY: Final = 0.001

#: What an epoll instance watches, and for what (proc(5)).
_EVENTS: Final = rb"(?m)^tfd:\s+(\d+) events:\s+([0-9a-f]+)"

_NOT_YET: Final = "polled by an event loop, which has not let go of it yet"
_UNKNOWN: Final = (
    "polled by epoll instance {} of this process, of which no loop or selector is known: "
    "unregister it there, or adopt what serves on it instead"
)


@final
class _Told:
    """What comes of telling loops, perhaps on their own threads."""

    def __init__(self) -> None:
        self.lost = 0
        self.waiting = 0


@final
class LetGo(NamedTuple):
    """What came of having those who poll a number let go of it."""

    #: Who polls it still, and what is to be done about it; empty if nobody does.
    by: str = ""
    #: Bytes that a transport had yet to write.
    lost: int = 0
    #: How many waited for it on an event loop.
    waiting: int = 0

    def then(self, release: Callable[[], object]) -> Outcome:
        """Release what has the number, unless it is polled still; return the outcome.

        Raises BusyResourceError if it is, and ReleaseError, once it is closed, for what a transport
        had yet to write.
        """
        if self.by:
            raise BusyResourceError(self.by)
        # A transport may have closed it as well.
        release()
        if self.lost:
            raise ReleaseError(f"closed, and {self.lost} bytes that were not written yet are lost")
        return Outcome.RELEASED


def let_all_go(numbers: Collection[int]) -> dict[int, LetGo]:
    """As `let_go`, for numbers that are about to be closed; of those that are polled.

    One look for all. Nor are signals written to any of them from then on (signal.set_wakeup_fd).
    """
    give_up_wakeup(numbers)
    for number in numbers:
        drop_unseen((number,))
    return {number: let_go(number) for number in polled(numbers)} if numbers else {}


def let_go(
    number: int,
    known_loops: Iterable[Any] = (),
    *,
    is_in_poll: bool = False,
    is_woken: bool = False,
    is_waited_for: bool = False,
) -> LetGo:
    """Have event loops, selectors and runs of trio poll a number no more.

    Transports are aborted, which tells their protocols, and with them whoever reads or writes a
    stream; whatever waits for it on a loop gets ConnectionAbortedError. Waits for a turn of a loop
    on another thread, unless that would hold up a loop here.

    `is_in_poll` is as for `objects_above`; `is_woken` says that a shutdown has just woken whoever
    waits for it, `is_waited_for` that somebody does on a loop that may not have told the kernel.
    """
    told = _Told()
    instances = polled({number}).get(number, [] if is_in_poll else None)
    drop_unseen((number,), told if is_waited_for else None)
    if instances is None:
        return LetGo("", told.lost, told.waiting)
    pollers = objects_above(number, instances, known_loops, is_in_poll=is_in_poll)
    asked = [_ask(each, number, told, is_woken=is_woken) for each in pollers]
    wait_a_turn([each for each in asked if each is not None])
    left = polled({number}).get(number)
    if left is None:
        by = ""
    elif set(left) <= {epoll_of(each) for each in pollers}:
        by = _NOT_YET
    else:
        by = _UNKNOWN.format(left[0])
    return LetGo(by, told.lost, told.waiting)


def wait_a_turn(futures: list[concurrent.futures.Future[Any]]) -> None:
    """Wait for what other threads do, for a while, unless that holds up an event loop here."""
    if futures and running_loop() is None:
        concurrent.futures.wait(futures, TURN)


def _ask(
    poller: Any, number: int, told: _Told, *, is_woken: bool
) -> concurrent.futures.Future[None] | None:
    """Have one of them let go; return a future if that is done on another thread."""
    if hasattr(poller, "unregister"):
        _forget_in(poller, number, is_woken=is_woken)
    elif hasattr(poller, "entry_queue"):
        return _tell_trio(poller, number)
    elif hasattr(poller, "remove_reader"):
        if poller in (running_loop(), held_up_loop()) or not poller.is_running():
            # Here, or where nothing moves before we are done.
            _drop(poller, number, told)
        else:
            return call_on_loop(poller, partial(_drop, poller, number, told))
    return None


# -- selectors -----------------------------------------------------------------


def _forget_in(selector: Any, number: int, *, is_woken: bool) -> None:
    """Have a selector forget a number, and a thread that waits in it look up."""
    epoll = epoll_of(selector)
    if is_woken and epoll is not None:
        # If it came to look only after the number was unregistered, it would find nothing.
        _wait_until(lambda: False, epoll)
    with contextlib.suppress(KeyError, ValueError, OSError):
        selector.unregister(number)
    if epoll is not None and _may_be_inside(epoll):
        with contextlib.suppress(OSError, AttributeError):
            _nudge(selector, epoll)


def _nudge(selector: Any, epoll: int) -> None:
    """Have epoll_wait(2) return, once, with something that the selector does not know: nothing."""
    event = os.eventfd(1, os.EFD_CLOEXEC)
    try:
        selector._selector.register(event, select.EPOLLIN | select.EPOLLONESHOT)  # noqa: SLF001  told nowhere else
        _wait_until(lambda: not _is_armed(epoll, event), epoll)
    finally:
        # Closed, it is unregistered as well (epoll(7), Q6).
        os.close(event)


def _is_armed(epoll: int, event: int) -> bool:
    """Tell whether an event is yet to be told of: once it has been, it is off (EPOLLONESHOT)."""
    found = re.findall(_EVENTS, read_proc(f"/proc/self/fdinfo/{epoll}"))
    return any(int(number) == event and int(mask, 16) & select.EPOLLIN for number, mask in found)


def _wait_until(is_done: Callable[[], bool], epoll: int) -> None:
    """Wait until that is so, or no thread can be in epoll_wait(2) of this instance."""
    started = time.monotonic()
    patience = TURN
    while not is_done() and time.monotonic() < started + patience:
        waiting = blocked_in()
        if waiting is None:
            return
        if epoll in waiting.inside:
            # It needs nobody's goodwill to leave, only to be scheduled.
            patience = _TO_LEAVE
        elif not waiting.is_any_running:
            return
        time.sleep(_LOOK_EVERY)


def _may_be_inside(epoll: int) -> bool:
    waiting = blocked_in()
    # One that runs may be on its way in, or not yet out.
    return waiting is not None and (epoll in waiting.inside or waiting.is_any_running)


# -- event loops -----------------------------------------------------------------


def drop_unseen(numbers: Iterable[int], told: _Told | None = None) -> None:
    """Take numbers off a loop that runs here, and tells the kernel only at its next turn.

    libuv ends the whole process (abort(3)) if a number is closed before that.
    """
    loop: Any = running_loop()
    for number in numbers if hasattr(loop, "_get_backend_id") else ():
        if told is None:
            _remove(loop, number)
        else:
            _drop(loop, number, told)


def _drop(loop: Any, number: int, told: _Told) -> None:
    """On its own loop: poll a number no more, and let nobody wait for it for ever."""
    involved = [*called_back(loop, number), *_users_of(loop, number)]
    for each in involved:
        if hasattr(each, "get_extra_info") and hasattr(each, "close") and not each.is_closing():
            told.lost += _abort(each)
    _remove(loop, number)
    for each in involved:
        if hasattr(each, "set_exception") and hasattr(each, "done") and not each.done():
            each.set_exception(ConnectionAbortedError("closed: its owner has ended"))
            told.waiting += 1


def _abort(transport: Any) -> int:
    """Close a transport at once; return the bytes that it had yet to write."""
    # One that only reads has no `abort`, or (in uvloop) one that says that it has none.
    with contextlib.suppress(AttributeError, NotImplementedError):
        unsent = int(transport.get_write_buffer_size())
        transport.abort()
        return unsent
    transport.close()
    return 0


def _remove(loop: Any, number: int) -> None:
    # A loop refuses what has a transport; that is aborted.
    with contextlib.suppress(RuntimeError, OSError):
        loop.remove_reader(number)
    with contextlib.suppress(RuntimeError, OSError):
        loop.remove_writer(number)


def called_back(loop: Any, number: int) -> list[Any]:
    """What a loop's callbacks for a number belong to and are given, as far as it tells."""
    try:
        data = loop._selector.get_map()[number].data  # noqa: SLF001  as asyncio has it
    except (KeyError, AttributeError, TypeError, RuntimeError):
        return []
    found: list[Any] = []
    for handle in data if isinstance(data, tuple) else ():
        found += getattr(handle, "_args", None) or ()
        found.append(getattr(getattr(handle, "_callback", None), "__self__", None))
    return found


def _users_of(loop: Any, number: int) -> list[Any]:
    """The transports of a number, and the futures that wait for it, of a loop that does not tell.

    Among all objects: some milliseconds.
    """
    if not hasattr(loop, "_get_backend_id"):
        return []
    package = package_of(type(loop))
    found = heap.instances(lambda cls: package_of(cls) == package)
    return [each for each in found if number in map(number_of, _parts_of(each))]


def _parts_of(thing: Any) -> list[Any]:
    """The sockets or pipes that a transport has, or a future waits for."""
    if hasattr(type(thing), "get_extra_info"):
        return [thing.get_extra_info(name) for name in ("socket", "pipe")]
    if not hasattr(type(thing), "set_exception"):
        return []
    found = gc.get_referents(thing)
    # Its attributes may be in a dictionary.
    return found + gc.get_referents(*[each for each in found if type(each) is dict])


def package_of(cls: type) -> str:
    """The package that a class comes from, empty if it does not tell."""
    module: object = cls.__module__
    return module.partition(".")[0] if isinstance(module, str) else ""


def number_of(thing: Any) -> int:
    """The descriptor number that a thing has, -1 if it has none, or none any more."""
    try:
        return int(thing.fileno())
    except (AttributeError, OSError, ValueError):
        return -1


# -- trio ------------------------------------------------------------------------


def _tell_trio(runner: Any, number: int) -> concurrent.futures.Future[None] | None:
    """Have trio wake those who wait for it, with ClosedResourceError, where it runs."""
    lowlevel = sys.modules["trio"].lowlevel
    token = runner.current_trio_token()
    with contextlib.suppress(RuntimeError):
        if lowlevel.current_trio_token() is token:
            lowlevel.notify_closing(number)
            return None
    done: concurrent.futures.Future[None] = Future()

    def tell() -> None:
        try:
            lowlevel.notify_closing(number)
        finally:
            done.set_result(None)

    try:
        token.run_sync_soon(tell)
    except RuntimeError:
        # trio.RunFinishedError
        return None
    return done
