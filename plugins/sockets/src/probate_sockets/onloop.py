"""A plain socket that something else uses: it is detached there before its number is closed.

Loops, selectors and servers are asked to let go, each on the thread where that may be done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, final

from probate import BusyResourceError
from probate.system import (
    blocked_in,
    called_back,
    heap,
    is_transport,
    let_go,
    number_of,
    objects_above,
    package_of,
    polled,
)
from probate_sockets import makefiles, polling
from probate_sockets.loopbound import LoopBound, is_server, sockets_of
from probate_sockets.threadserver import ThreadServer

if TYPE_CHECKING:
    import concurrent.futures
    import socket
    from collections.abc import Iterable

    from probate import Outcome
    from probate.system import LetGo


class Above(Protocol):
    """A server, transport or stream that was made of a socket, and closes it."""

    @property
    def native(self) -> object:
        """Return it as its users have it."""

    @property
    def adopted(self) -> object:
        """Return what was adopted of it."""

    def ask_to_close(self) -> concurrent.futures.Future[None] | None:
        """Have it close by itself; return a future for when it has, if that is worth waiting."""

    def release(self) -> Outcome:
        """Close it by force. Raises as `PlainSocket.release`."""


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


def owners_of(sock: socket.socket, loops: list[Any], use: Use) -> list[Above]:
    """The servers and transports that were made of a socket, and close it themselves."""
    number = use.number
    found: list[Above] = [ThreadServer(server) for server in polling.servers_in(number)]
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


def detach(sock: socket.socket, loops: list[Any], use: Use, *, is_woken: bool) -> LetGo:
    """Have whoever polls a socket let go of it; return what came of that.

    Raises BusyResourceError if it has yet to happen on another thread, or cannot be done.
    """
    found = let_go(
        use.number,
        loops,
        is_in_poll=use.is_in_poll,
        is_woken=is_woken,
        is_waited_for=makefiles.is_used_above(sock),
    )
    if found.by:
        raise BusyResourceError(found.by)
    return found


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
    servers = [each for each in called_back(loop, number) if is_server(each)]
    return servers[:1]


def _foreign_natives(loop: Any, number: int) -> list[Any]:
    """As `_natives`, of a loop that does not tell: among all objects of its package."""
    package = package_of(type(loop))
    found = []
    for each in heap.instances(lambda cls: package_of(cls) == package):
        if is_server(each) and each.get_loop() is not loop:
            continue
        if (is_server(each) or is_transport(each)) and any(
            number_of(own) == number for own in sockets_of(each)
        ):
            found.append(each)
    return found[:1]
