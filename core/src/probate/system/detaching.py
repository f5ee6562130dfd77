"""Having those who poll a number let go of it, each on the thread where that may be done."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import select
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate.errors import BusyResourceError, ReleaseError
from probate.outcome import Outcome
from probate.system.blocked import blocked_in
from probate.system.loops import call_on_loop, held_up_loop, running_loop
from probate.system.polling import epoll_of, objects_above, polled
from probate.system.wakeup import give_up_wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

#: Seconds that another thread is waited for, where that holds up no event loop here.
TURN: Final = 0.25

#: Seconds between two looks whether a thread has left.
_LOOK_EVERY: Final = 0.001

_NOT_YET: Final = "polled by an event loop, which has not let go of it yet"
_UNKNOWN: Final = (
    "polled by epoll instance {} of this process, of which no loop or selector is known: "
    "unregister it there, or adopt what serves on it instead"
)


@final
class LetGo(NamedTuple):
    """What came of having those who poll a number let go of it."""

    #: Who polls it still, and what is to be done about it; empty if nobody does.
    by: str = ""
    #: Bytes that a transport had yet to write.
    lost: int = 0

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
        drop_unseen(number)
    return {number: let_go(number) for number in polled(numbers)} if numbers else {}


def let_go(
    number: int,
    known_loops: Iterable[Any] = (),
    *,
    is_in_poll: bool = False,
    is_woken: bool = False,
) -> LetGo:
    """Have event loops, selectors and runs of trio poll a number no more.

    Transports are aborted, which tells their protocols, and with them whoever reads or writes a
    stream; whatever waits for it on a loop gets ConnectionAbortedError. Waits for a turn of a loop
    on another thread, unless that would hold up a loop here. `is_in_poll` is as for
    `objects_above`; `is_woken` says that a shutdown has just woken whoever waits for it.
    """
    drop_unseen(number)
    instances = polled({number}).get(number, [] if is_in_poll else None)
    if instances is None:
        return LetGo()
    lost: list[int] = []
    pollers = objects_above(number, instances, known_loops, is_in_poll=is_in_poll)
    asked = [_ask(each, number, lost, is_woken=is_woken) for each in pollers]
    wait_a_turn([each for each in asked if each is not None])
    left = polled({number}).get(number)
    if left is None:
        by = ""
    elif set(left) <= {epoll_of(each) for each in pollers}:
        by = _NOT_YET
    else:
        by = _UNKNOWN.format(left[0])
    return LetGo(by, sum(lost))


def wait_a_turn(futures: list[concurrent.futures.Future[Any]]) -> None:
    """Wait for what other threads do, for a while, unless that holds up an event loop here."""
    if futures and running_loop() is None:
        concurrent.futures.wait(futures, TURN)


def _ask(
    poller: Any, number: int, lost: list[int], *, is_woken: bool
) -> concurrent.futures.Future[None] | None:
    """Have one of them let go; return a future if that is done on another thread."""
    if hasattr(poller, "unregister"):
        _forget_in(poller, number, is_woken=is_woken)
    elif hasattr(poller, "entry_queue"):
        return _tell_trio(poller, number)
    elif hasattr(poller, "remove_reader"):
        if poller in (running_loop(), held_up_loop()) or not poller.is_running():
            # Here, or where nothing moves before we are done.
            _drop(poller, number, lost)
        else:
            return call_on_loop(poller, partial(_drop, poller, number, lost))
    return None


# -- selectors -----------------------------------------------------------------


def _forget_in(selector: Any, number: int, *, is_woken: bool) -> None:
    """Have a selector forget a number, and a thread that waits in it look up."""
    epoll = epoll_of(selector)
    if is_woken:
        # If it came to look only after the number was unregistered, it would find nothing.
        _let_leave(epoll)
    with contextlib.suppress(KeyError, ValueError, OSError):
        selector.unregister(number)
    if epoll is not None and _is_inside(epoll):
        with contextlib.suppress(OSError, AttributeError):
            _nudge(selector, epoll)


def _nudge(selector: Any, epoll: int) -> None:
    """Have epoll_wait(2) return, once, with something that the selector does not know: nothing."""
    event = os.eventfd(1, os.EFD_CLOEXEC)
    try:
        selector._selector.register(event, select.EPOLLIN | select.EPOLLONESHOT)  # noqa: SLF001  told nowhere else
        _let_leave(epoll)
    finally:
        # Closed, it is unregistered as well (epoll(7), Q6).
        os.close(event)


def _let_leave(epoll: int | None) -> None:
    """Let a thread that has been woken leave epoll_wait(2)."""
    over = time.monotonic() + TURN
    while epoll is not None and _is_inside(epoll) and time.monotonic() < over:
        time.sleep(_LOOK_EVERY)


def _is_inside(epoll: int) -> bool:
    waiting = blocked_in()
    return waiting is not None and epoll in waiting.inside


# -- event loops -----------------------------------------------------------------


def drop_unseen(number: int) -> None:
    """Take a number off a loop that runs here, and tells the kernel only at its next turn.

    libuv ends the whole process (abort(3)) if a number is closed before that.
    """
    loop: Any = running_loop()
    if hasattr(loop, "_get_backend_id"):
        _remove(loop, number)


def _drop(loop: Any, number: int, lost: list[int]) -> None:
    """On its own loop: poll a number no more, and let nobody wait for it for ever."""
    involved = called_back(loop, number)
    for each in [*involved, *_foreign_transports(loop, number)]:
        if hasattr(each, "get_extra_info") and hasattr(each, "close") and not each.is_closing():
            if hasattr(each, "get_write_buffer_size"):
                lost.append(each.get_write_buffer_size())
            getattr(each, "abort", each.close)()
    _remove(loop, number)
    for each in involved:
        if hasattr(each, "set_exception") and hasattr(each, "done") and not each.done():
            each.set_exception(ConnectionAbortedError("closed: its owner has ended"))


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


def _foreign_transports(loop: Any, number: int) -> list[Any]:
    """The transports that have a number, of a loop that does not tell: among all objects."""
    if not hasattr(loop, "_get_backend_id"):
        return []
    package = package_of(type(loop))
    return [
        each
        for each in gc.get_objects()
        if package_of(type(each)) == package
        and hasattr(type(each), "get_extra_info")
        and number in (_number_of(each.get_extra_info(name)) for name in ("socket", "pipe"))
    ]


def package_of(cls: type) -> str:
    """The package that a class comes from, empty if it does not tell."""
    module: object = cls.__module__
    return module.partition(".")[0] if isinstance(module, str) else ""


def _number_of(thing: Any) -> int:
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
    done: concurrent.futures.Future[None] = concurrent.futures.Future()

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
