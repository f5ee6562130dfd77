"""Servers and transports of event loops, which only their own loop may touch.

Of asyncio's, uvloop's and any other loop of that shape: told by what they can do, not by class.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, final

from probate import has_owner
from probate.system import BoundTransport, heap, package_of, parts_of, sharers_of
from probate_sockets.unix import unlink_bound

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from probate_sockets.unix import BoundPath


@final
class LoopBound(BoundTransport):
    """A server with its connections, or a transport; and the loop that it lives on."""

    __slots__ = ("adopted", "bound", "connections")

    def __init__(
        self,
        native: Any,
        loop: asyncio.AbstractEventLoop,
        adopted: object = None,
        bound: Iterable[BoundPath] = (),
    ) -> None:
        super().__init__(native, loop, sockets_of(native))
        #: What was adopted, kept alive: a stream writer closes its transport when it is collected.
        self.adopted = native if adopted is None else adopted
        #: Unix paths that it is bound to.
        self.bound = list(bound)
        #: Transports of a server that was asked to close.
        self.connections: list[LoopBound] = []

    def has_closed(self) -> bool:
        """Tell whether it is closed, and its connections are."""
        return super().has_closed() and all(each.has_closed() for each in self.connections)

    def has_owner(self) -> bool:
        """Whether one of its numbers is owned."""
        return any(has_owner(each.number) for each in self.descriptors)

    def close_gently(self) -> None:
        """Close it, on its loop, as `BoundTransport` does, and its connections with it."""
        if is_server(self.native) and not self.connections:
            # Those that somebody owns are given back by their owner's end.
            made = [LoopBound(each, self.loop) for each in connections_of(self)]
            self.connections = [each for each in made if not each.has_owner()]
        self._unlink()
        super().close_gently()
        for each in self.connections:
            each.close_gently()

    def _close_by_force(self) -> None:
        self.close_gently()
        for each in self.connections:
            each.abort()
            self.lost += each.lost
            each.lost = 0
        self.abort()

    def _close_without_loop(self) -> None:
        self._unlink()
        super()._close_without_loop()

    def _close_early(self) -> None:
        """Let whoever is at the other end know, as long as the number cannot be closed."""
        if self.loop.is_running():
            return
        for each, descriptor in zip(self.parts, self.descriptors, strict=True):
            if descriptor.is_ours and not sharers_of(descriptor.number):
                with contextlib.suppress(OSError, AttributeError):
                    each.shutdown(2)

    def _unlink(self) -> None:
        """Unlink its paths, as long as the socket is open, which pins the inode."""
        for path in self.bound:
            unlink_bound(path)
        self.bound.clear()


# -- what they can do ------------------------------------------------------------


def is_server(thing: object) -> bool:
    """Whether it is a server of an event loop."""
    names = ("close", "wait_closed", "get_loop", "sockets")
    return all(hasattr(type(thing), name) for name in names)


def sockets_of(native: Any) -> tuple[Any, ...]:
    """Its sockets, or the pipe of a transport."""
    if is_server(native):
        return tuple(getattr(native, "sockets", None) or ())
    return parts_of(native)


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
        names = {_name_of(each) for each in server.parts}
        found = [
            each
            for each in heap.instances(_is_foreign_transport)
            if type(each.get_protocol()).__name__ != "SSLProtocol"
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
