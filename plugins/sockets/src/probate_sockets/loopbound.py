"""asyncio servers and transports, which only their own event loop may touch."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, final

from probate import BusyResourceError, Outcome
from probate.system import call_on_loop, lazy_module, running_loop

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
else:
    asyncio = lazy_module("asyncio")


@final
class LoopBound:
    """An asyncio server or transport, and the loop that it lives on."""

    __slots__ = ("adopted", "asked", "loop", "native", "sockets")

    def __init__(
        self,
        native: asyncio.AbstractServer | asyncio.BaseTransport,
        loop: asyncio.AbstractEventLoop,
        adopted: object,
    ) -> None:
        self.native = native
        #: What was adopted, kept alive: a stream writer closes its transport when it is collected.
        self.adopted = adopted
        self.loop = loop
        #: Its sockets, as far as it shows them.
        self.sockets = _sockets_of(native)
        #: Whether we have asked for it to be closed.
        self.asked = False

    def __repr__(self) -> str:
        return f"{type(self.native).__name__} {', '.join(map(repr, self.sockets)) or 'closed'}"

    @property
    def is_closed(self) -> bool:
        """Whether the kernel's side is gone: closing is a request, this is a fact."""
        return all(sock.fileno() == -1 for sock in self.sockets)

    def ask_to_close(self) -> concurrent.futures.Future[None] | None:
        """Have the loop close it; return a future for when it is closed, None if no loop runs."""
        if self.is_closed:
            return None
        self.asked = True
        return call_on_loop(self.loop, self._close)

    def release(self) -> Outcome:
        """Close by force. Raises BusyResourceError while its loop has yet to let go of it."""
        if self.is_closed:
            return Outcome.RELEASED if self.asked else Outcome.ALREADY_GONE
        for sock in self.sockets:
            # From any thread: whoever is at the other end, or waits for data, learns of it now.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        if self.loop is running_loop() or not self.loop.is_running():
            self._close()
            if self.is_closed or self.loop is running_loop():
                # A transport on this very loop is closed by its next turn, which needs no one.
                return Outcome.RELEASED
            raise BusyResourceError("shut down, but its event loop no longer runs to close it")
        self.ask_to_close()
        raise BusyResourceError("shut down, but its event loop has not closed it yet")

    def _close(self) -> None:
        if isinstance(self.native, asyncio.AbstractServer):
            self.native.close()
        elif isinstance(self.native, asyncio.WriteTransport):
            self.native.abort()
        elif isinstance(self.native, asyncio.BaseTransport):
            self.native.close()


def bind_to_loop(resource: object) -> LoopBound | None:
    """Wrap an asyncio server, stream writer or socket transport; None for anything else.

    Raises ValueError if it is closed, or does not tell its event loop.
    """
    adopted = resource
    if isinstance(resource, asyncio.StreamWriter):
        resource = resource.transport
    if not isinstance(resource, (asyncio.AbstractServer, asyncio.BaseTransport)):
        return None
    if isinstance(resource, asyncio.AbstractServer):
        loop = resource.get_loop()
    else:
        # Transports have no get_loop(); they are made, and best adopted, on their loop.
        own = getattr(resource, "_loop", None)
        try:
            loop = own if own is not None else asyncio.get_running_loop()
        except RuntimeError:
            raise ValueError(f"adopt {resource!r} on its own event loop") from None
    bound = LoopBound(resource, loop, adopted)
    if bound.is_closed:
        if not bound.sockets and isinstance(resource, asyncio.BaseTransport):
            return None
        raise ValueError(f"closed, so it cannot be adopted: {resource!r}")
    return bound


def _sockets_of(
    native: asyncio.AbstractServer | asyncio.BaseTransport,
) -> tuple[socket.socket, ...]:
    if isinstance(native, asyncio.BaseTransport):
        own = native.get_extra_info("socket")
        return () if own is None else (own,)
    return tuple(getattr(native, "sockets", ()))
