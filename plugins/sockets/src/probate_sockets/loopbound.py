"""Servers and transports of event loops, which only their own loop may touch.

Of asyncio's, uvloop's and any other loop of that shape: told by what they can do, not by class.
"""

from __future__ import annotations

import contextlib
import gc
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from probate import BusyResourceError, Outcome, has_owner
from probate.errors import ReleaseError
from probate.system import (
    Future,
    OwnedDescriptor,
    call_on_loop,
    close_at_once,
    number_of,
    package_of,
    running_loop,
    sharers_of,
    wait_a_turn,
)
from probate_sockets.unix import unlink_bound

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import Iterable

    from probate_sockets.unix import BoundPath

#: Seconds between two looks whether something has closed; from the first to the longest.
_FIRST_LOOK: Final = 0.001
_LAST_LOOK: Final = 0.05


@final
class LoopBound:
    """A server with its connections, or a transport; and the loop that it lives on."""

    __slots__ = (
        "__weakref__",
        "_below",
        "_ended",
        "_is_closing",
        "adopted",
        "asked",
        "bound",
        "connections",
        "descriptors",
        "loop",
        "lost",
        "native",
        "sockets",
    )

    def __init__(
        self,
        native: Any,
        loop: asyncio.AbstractEventLoop,
        adopted: object = None,
        bound: Iterable[BoundPath] = (),
    ) -> None:
        self.native = native
        #: What was adopted, kept alive: a stream writer closes its transport when it is collected.
        self.adopted = native if adopted is None else adopted
        self.loop = loop
        #: Its sockets or its pipe, as far as it shows them and they are open.
        self.sockets: list[Any] = []
        #: The number of each.
        self.descriptors: list[OwnedDescriptor] = []
        for each in sockets_of(native):
            # -1 is a bad number, too.
            with contextlib.suppress(OSError):
                self.descriptors.append(OwnedDescriptor(number_of(each), partial(number_of, each)))
                self.sockets.append(each)
        #: Unix paths that it is bound to.
        self.bound = list(bound)
        #: Transports of a server that was asked to close.
        self.connections: list[LoopBound] = []
        #: Whether we have asked for it to be closed.
        self.asked = False
        #: Bytes that were written to it and that force has thrown away.
        self.lost = 0
        self._below = _below(native)
        self._is_closing = False
        self._ended: concurrent.futures.Future[None] | None = None

    def __repr__(self) -> str:
        return f"{type(self.native).__name__} {', '.join(map(repr, self.sockets)) or 'closed'}"

    def has_closed(self) -> bool:
        """Whether the kernel's side is gone: closing is a request, this is a fact."""
        return not any(each.is_ours for each in self.descriptors) and all(
            each.has_closed() for each in self.connections
        )

    def has_owner(self) -> bool:
        """Whether one of its numbers is owned."""
        return any(has_owner(each.number) for each in self.descriptors)

    # -- gently ---------------------------------------------------------------

    def ask_to_close(self) -> concurrent.futures.Future[None] | None:
        """Have the loop close it once all is sent; return a future for when it is closed.

        Returns None if it is closed, or no loop runs that could.
        """
        if self.has_closed():
            return None
        self.asked = True
        closed: concurrent.futures.Future[None] = Future()

        def close() -> None:
            self.close_gently()
            _watch(self, closed, _FIRST_LOOK)

        return None if call_on_loop(self.loop, close) is None else closed

    def close_gently(self) -> None:
        """Close it, on its loop: what was written is sent first, and TLS says close_notify."""
        if is_server(self.native) and not self.connections:
            # Those that somebody owns are given back by their owner's end.
            made = [LoopBound(each, self.loop) for each in connections_of(self)]
            self.connections = [each for each in made if not each.has_owner()]
        for path in self.bound:
            # As long as the socket is open, which pins the inode.
            unlink_bound(path)
        self.bound.clear()
        if not self._is_closing:
            # Once: asyncio's TLS forgets what is below it at a second call.
            self._is_closing = True
            for descriptor in self.descriptors:
                # The loop closes it, now or later, and must not wait in that.
                if descriptor.is_ours:
                    close_at_once(descriptor.number)
            self.native.close()
        for each in self.connections:
            each.close_gently()

    # -- by force -------------------------------------------------------------

    def release(self) -> Outcome:
        """Close by force. Raises BusyResourceError while its loop has yet to let go of it.

        Raises ReleaseError if bytes were thrown away that had been written to it.
        """
        if self.has_closed():
            self._leave_alone()
            return self._account(Outcome.RELEASED if self.asked else Outcome.ALREADY_GONE)
        if self.loop.is_closed():
            self._close_without_loop()
            return self._account(Outcome.RELEASED)
        self.asked = True
        if self.loop is running_loop():
            self._close_by_force()
            # What is left to close is closed by the loop's next turn, which needs no one.
            return self._account(Outcome.RELEASED)
        if not self.loop.is_running():
            self._close_by_force()
            self._tell_peers()
            if self.has_closed():
                return self._account(Outcome.RELEASED)
            raise BusyResourceError("closed, but its event loop no longer runs to let go of it")
        if self._ended is None:
            self._ended = call_on_loop(self.loop, self._close_by_force)
        if self._ended is not None:
            wait_a_turn([self._ended])
        if self.has_closed():
            return self._account(Outcome.RELEASED)
        raise BusyResourceError("told to close, but its event loop has not closed it yet")

    def _leave_alone(self) -> None:
        """Have its sockets close no number that is another's by now, when they are collected."""
        for each, descriptor in zip(self.sockets, self.descriptors, strict=True):
            sock = getattr(each, "_sock", None)
            if isinstance(sock, socket.socket) and sock.fileno() == descriptor.number:
                sock.detach()

    def _close_by_force(self) -> None:
        self.close_gently()
        for each in self.connections:
            each.abort()
            self.lost += each.lost
            each.lost = 0
        self.abort()

    def abort(self) -> None:
        """Close a transport at once, on its loop, and count what it has not sent."""
        if is_server(self.native) or self.has_closed():
            return
        self.lost = unsent(self.native, self._below)
        abort = getattr(self.native, "abort", None)
        if abort is not None and (self.lost or not self._is_plain):
            abort()

    @property
    def _is_plain(self) -> bool:
        """Whether, with nothing left to send, it closes by itself at once."""
        return self._below is None and package_of(type(self.native)) == "asyncio"

    def _close_without_loop(self) -> None:
        """Close what a closed loop has left open, through the object that has the number."""
        for path in self.bound:
            unlink_bound(path)
        self.lost = 0 if is_server(self.native) else unsent(self.native, self._below)
        for each, descriptor in zip(self.sockets, self.descriptors, strict=True):
            if descriptor.is_ours:
                close_at_once(descriptor.number)
                getattr(each, "_sock", each).close()
        if any(each.is_open for each in self.descriptors):
            raise ReleaseError("its event loop is closed, and what has its number does not show")

    def _tell_peers(self) -> None:
        """Let whoever is at the other end know, as long as the number cannot be closed."""
        for each, descriptor in zip(self.sockets, self.descriptors, strict=True):
            if descriptor.is_ours and not sharers_of(descriptor.number):
                with contextlib.suppress(OSError, AttributeError):
                    each.shutdown(2)

    def _account(self, outcome: Outcome) -> Outcome:
        if self.lost:
            lost, self.lost = self.lost, 0
            raise ReleaseError(
                f"closed, but {lost} bytes written to it were not sent, and are lost"
            )
        return outcome


def _watch(bound: LoopBound, closed: concurrent.futures.Future[None], pause: float) -> None:
    """Look, on the loop, until it is closed."""
    if bound.has_closed():
        if not closed.done():
            closed.set_result(None)
    else:
        bound.loop.call_later(pause, _watch, bound, closed, min(pause * 2, _LAST_LOOK))


# -- what they can do ------------------------------------------------------------


def is_server(thing: object) -> bool:
    """Whether it is a server of an event loop."""
    return _has(thing, "close", "wait_closed", "get_loop", "sockets")


def is_transport(thing: object) -> bool:
    """Whether it is a transport of an event loop."""
    return _has(thing, "get_extra_info", "get_protocol", "is_closing", "close")


def _has(thing: object, *names: str) -> bool:
    cls = type(thing)
    return all(hasattr(cls, name) for name in names)


def sockets_of(native: Any) -> tuple[Any, ...]:
    """Its sockets, or the pipe of a transport."""
    if is_server(native):
        return tuple(getattr(native, "sockets", None) or ())
    for name in ("socket", "pipe"):
        if (own := native.get_extra_info(name)) is not None:
            return (own,)
    return ()


def unsent(transport: Any, below: Any = None) -> int:
    """How many bytes written to a transport have not been handed to the kernel.

    Those of TLS's included, which has a plain transport below it.
    """
    total = 0
    for each in (transport, below):
        with contextlib.suppress(Exception):
            total += each.get_write_buffer_size()
    return total


def connections_of(server: LoopBound) -> list[Any]:
    """The transports that a server has accepted, outermost: TLS rather than what is below it."""
    loop = server.loop
    clients = getattr(server.native, "_clients", None)
    transports = getattr(loop, "_transports", None)
    if clients is not None:
        found = list(clients)
    elif transports is not None:
        found = [
            each
            for each in list(transports.values())
            if getattr(each, "_server", None) is server.native
        ]
    else:
        # A loop that does not tell: by address, among all transports there are.
        names = {_name_of(each) for each in server.sockets}
        found = [
            each
            for each in gc.get_objects()
            if _is_foreign_transport(type(each))
            and type(each.get_protocol()).__name__ != "SSLProtocol"
            and not each.is_closing()
            and _name_of(each.get_extra_info("socket")) in names
        ]
    return list({id(outer): outer for outer in map(_outermost, found)}.values())


def _is_foreign_transport(cls: type) -> bool:
    return package_of(cls) == "uvloop" and hasattr(cls, "get_extra_info")


def _name_of(sock: Any) -> object:
    try:
        name = sock.getsockname()
    except (AttributeError, OSError):
        return None
    # Of a server on every interface, connections have the address of one.
    return name[1] if isinstance(name, tuple) else name


def _outermost(transport: Any) -> Any:
    protocol = getattr(transport, "get_protocol", lambda: None)()
    return getattr(protocol, "_app_transport", None) or transport


def _below(transport: Any) -> Any:
    """The plain transport below one of TLS."""
    protocol = getattr(transport, "_ssl_protocol", None)
    return getattr(protocol, "_transport", None)
