"""A plain socket that something else uses: it is detached there before its number is closed.

Loops, selectors and servers are asked to let go, each on the thread where that may be done.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, final

from probate import BusyResourceError
from probate.system import (
    Blocked,
    blocked_in,
    call_on_loop,
    epoll_of,
    objects_above,
    polled,
    running_loop,
)
from probate_sockets import polling
from probate_sockets.loopbound import (
    LoopBound,
    is_server,
    is_transport,
    number_of,
    package_of,
    sockets_of,
)
from probate_sockets.threadserver import ThreadServer

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

    from probate_sockets.plain import PlainSocket

    Native = LoopBound | ThreadServer


@final
class Use(NamedTuple):
    """Who waits for a socket at the moment, or polls it."""

    number: int
    #: The epoll instances that watch it.
    instances: tuple[int, ...]
    #: Whether a thread is blocked in it, None if that cannot be told.
    is_waited_for: bool | None
    #: Whether a thread polls it without an epoll instance, not only for its own timeout.
    is_in_poll: bool

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for it."""
        return not self.instances and self.is_waited_for is False


def use_of(sock: socket.socket) -> Use:
    """Look who waits for a socket."""
    number = sock.fileno()
    instances = tuple(polled({number}).get(number, ()))
    waiting = blocked_in()
    if waiting is None:
        return Use(number, instances, is_waited_for=None, is_in_poll=False)
    is_in_poll = number in waiting.in_poll
    is_waited_for = is_in_poll or number in waiting.inside
    return Use(number, instances, is_waited_for, is_in_poll and not sock.gettimeout())


def owners_of(sock: socket.socket, loops: list[Any], use: Use) -> list[Native]:
    """The servers and transports that were made of a socket, and close it themselves."""
    number = use.number
    found: list[Native] = [ThreadServer(server) for server in polling.servers_in(number)]
    pollers = objects_above(number, use.instances, loops)
    for loop in {id(each): each for each in [*loops, *pollers]}.values():
        if hasattr(loop, "call_soon_threadsafe") and not loop.is_closed():
            found += [LoopBound(each, loop) for each in _natives(loop, sock, number)]
    return found


def is_polled_by(loops: Iterable[Any], number: int) -> bool:
    """Whether one of these loops polls a number, as far as it tells."""
    for loop in loops:
        selector = getattr(loop, "_selector", None)
        if selector is not None and number in (selector.get_map() or ()):
            return True
        # A transport that reads nothing at the moment is not polled, but known to its loop.
        if number in getattr(loop, "_transports", ()):
            return True
    return False


def in_use(entries: Sequence[PlainSocket], waiting: Blocked | None) -> set[int]:
    """The numbers of these sockets that anybody polls, serves on, or has made a file of.

    One look for all: what is found is looked at one by one.
    """
    numbers = {each.native.fileno() for each in entries}
    used = set(polled(numbers))
    used.update(number_of(server) for server in polling.serving())
    used.update(
        each.native.fileno()
        for each in entries
        if getattr(each.native, "_io_refs", 0) or is_polled_by(each.loops, each.number)
    )
    used |= numbers if waiting is None else waiting.in_poll
    return used & numbers


def detach(sock: socket.socket, loops: list[Any], use: Use) -> None:
    """Have whoever polls a socket let go of it.

    Raises BusyResourceError if that has yet to happen on another thread, or cannot be done.
    """
    number = use.number
    drop_unseen(loops, number)
    if not use.instances and not use.is_in_poll:
        return
    pollers = objects_above(number, use.instances, loops, without_epoll=use.is_in_poll)
    waiting: list[concurrent.futures.Future[None]] = []
    for each in pollers:
        if hasattr(each, "unregister"):
            _let_wake(epoll_of(each))
            with contextlib.suppress(KeyError, ValueError, OSError):
                each.unregister(number)
        elif hasattr(each, "entry_queue"):
            _tell_trio(each, sock)
        elif each is running_loop() or not each.is_running():
            _drop(each, number)
        elif (done := call_on_loop(each, partial(_drop, each, number))) is not None:
            waiting.append(done)
    if waiting and running_loop() is None:
        concurrent.futures.wait(waiting, _TURN)
    left = polled({number}).get(number, ())
    if not left:
        return
    if set(left) <= {epoll_of(each) for each in pollers}:
        raise BusyResourceError("polled by an event loop, which has not let go of it yet")
    raise BusyResourceError(
        f"polled by epoll instance {left[0]} of this process, of which no loop or selector is "
        "known: unregister it there, or adopt what serves on it instead"
    )


def _let_wake(instance: int | None) -> None:
    """Let a thread that a shutdown has just woken leave epoll_wait(2).

    If it came to look only after the number was unregistered, it would find nothing and sleep on.
    """
    over = time.monotonic() + _TURN
    while instance is not None and time.monotonic() < over:
        waiting = blocked_in()
        if waiting is None or instance not in waiting.inside:
            return
        time.sleep(_LOOK_EVERY)


#: Seconds between two looks whether a thread has left.
_LOOK_EVERY = 0.001

#: Seconds that another thread's loop is waited for, where that holds up no loop here.
_TURN = 0.25


def drop_unseen(loops: Iterable[Any], number: int) -> None:
    """Take a number off a loop that runs here and tells the kernel only at its next turn.

    libuv ends the whole process (abort(3)) if a number is closed before that.
    """
    here: Any = running_loop()
    for loop in loops:
        if loop is here and hasattr(loop, "_get_backend_id"):
            loop.remove_reader(number)
            loop.remove_writer(number)


def is_opaque(loops: Iterable[Any], use: Use) -> bool:
    """Whether a loop polls it that does not tell who waits: they need a turn to be woken."""
    pollers = objects_above(use.number, use.instances, loops)
    return any(hasattr(each, "_get_backend_id") for each in pollers)


def _natives(loop: Any, sock: socket.socket, number: int) -> list[Any]:
    """Servers and transports of a loop that have a socket's number."""
    transports = getattr(loop, "_transports", None)
    selector = getattr(loop, "_selector", None)
    if transports is None or selector is None:
        return _foreign_natives(loop, number) if getattr(sock, "_io_refs", 0) else []
    transport = transports.get(number)
    if transport is not None and number_of(transport.get_extra_info("socket")) == number:
        protocol = transport.get_protocol()
        return [getattr(protocol, "_app_transport", None) or transport]
    servers = [each for each in _arguments(selector, number) if is_server(each)]
    return servers[:1]


def _foreign_natives(loop: Any, number: int) -> list[Any]:
    """As `_natives`, of a loop that does not tell: among all objects of its package."""
    package = package_of(type(loop))
    found = []
    for each in gc.get_objects():
        if package_of(type(each)) == package:
            if is_server(each) and each.get_loop() is not loop:
                continue
            if (is_server(each) or is_transport(each)) and any(
                number_of(own) == number for own in sockets_of(each)
            ):
                found.append(each)
    return found[:1]


def _drop(loop: Any, number: int) -> None:
    """On its own loop: poll a number no more, and let nobody wait for it for ever."""
    waiting = [
        each
        for each in _arguments(getattr(loop, "_selector", None), number)
        if hasattr(each, "set_exception") and hasattr(each, "done")
    ]
    loop.remove_reader(number)
    loop.remove_writer(number)
    for future in waiting:
        if not future.done():
            future.set_exception(ConnectionAbortedError("closed: its owner has ended"))


def _arguments(selector: Any, number: int) -> list[Any]:
    """What the callbacks of a number have been given, as asyncio keeps it."""
    try:
        data = selector.get_map()[number].data
    except (KeyError, AttributeError, TypeError, RuntimeError):
        return []
    found: list[Any] = []
    for handle in data if isinstance(data, tuple) else ():
        found += getattr(handle, "_args", None) or ()
        found.append(getattr(getattr(handle, "_callback", None), "__self__", None))
    return found


def _tell_trio(runner: Any, sock: socket.socket) -> None:
    """Have trio wake those who wait for it, with ClosedResourceError, and close it there."""
    lowlevel = sys.modules["trio"].lowlevel
    token = runner.current_trio_token()
    try:
        is_here = lowlevel.current_trio_token() is token
    except RuntimeError:
        is_here = False
    if is_here:
        lowlevel.notify_closing(sock)
    else:
        with contextlib.suppress(Exception):
            token.run_sync_soon(_notify_closing, lowlevel, sock)


def _notify_closing(lowlevel: Any, sock: socket.socket) -> None:
    if sock.fileno() != -1:
        lowlevel.notify_closing(sock)
