"""BoundTransport: a transport of an event loop, closed gently or by force where it belongs.

Of asyncio's, uvloop's and any other loop of that shape: told by what it can do, not by class.
"""

from __future__ import annotations

import contextlib
import gc
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from probate.errors import BusyResourceError, ReleaseError
from probate.outcome import Outcome
from probate.system.descriptor import OwnedDescriptor
from probate.system.detaching import number_of, package_of, wait_a_turn
from probate.system.future import Future
from probate.system.lingering import close_at_once
from probate.system.loops import call_on_loop, held_up_loop, running_loop
from probate.system.polling import kind_of

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import Iterable, Iterator

#: Seconds between two looks whether something has closed; from the first to the longest.
_FIRST_LOOK: Final = 0.001
_LAST_LOOK: Final = 0.05

#: What a transport has, and what a stream writer has.
_TRANSPORT: Final = ("get_extra_info", "get_protocol", "is_closing", "close")
_WRITER: Final = ("transport", "write", "wait_closed", "close")


class BoundTransport:
    """Closes a transport on the event loop that it belongs to, and counts what was not sent.

    First gently (`ask_to_close`), which sends what was written to it, then by force (`release`);
    both from any thread. `parts` are the objects that have its numbers, by default its socket or
    pipe.
    """

    __slots__ = (
        "__weakref__",
        "_below",
        "_ended",
        "_is_closing",
        "asked",
        "descriptors",
        "loop",
        "lost",
        "native",
        "parts",
    )

    def __init__(
        self, native: Any, loop: asyncio.AbstractEventLoop, parts: Iterable[Any] | None = None
    ) -> None:
        self.native = native
        self.loop = loop
        #: Its socket or its pipe, as far as it shows them and they are open.
        self.parts: list[Any] = []
        #: The number of each.
        self.descriptors: list[OwnedDescriptor] = []
        for each in parts_of(native) if parts is None else parts:
            # -1 is a bad number, too.
            with contextlib.suppress(OSError):
                self.descriptors.append(OwnedDescriptor(number_of(each), partial(number_of, each)))
                self.parts.append(each)
        #: Whether we have asked for it to be closed.
        self.asked = False
        #: Bytes that were written to it and that force has thrown away.
        self.lost = 0
        self._below = _below(native)
        self._is_closing = False
        self._ended: concurrent.futures.Future[None] | None = None

    def __repr__(self) -> str:
        return f"{type(self.native).__name__} {', '.join(map(repr, self.parts)) or 'closed'}"

    def has_closed(self) -> bool:
        """Tell whether the kernel's side is gone: closing is a request, this is a fact."""
        return not any(each.is_ours for each in self.descriptors)

    def unsent(self) -> int:
        """Count the bytes written to it that have not been handed to the kernel.

        Those of TLS included, which has a plain transport below it.
        """
        total = 0
        for each in (self.native, self._below):
            with contextlib.suppress(Exception):
                total += each.get_write_buffer_size()
        return total

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
            self._watch(closed, _FIRST_LOOK)

        return None if call_on_loop(self.loop, close) is None else closed

    def close_gently(self) -> None:
        """Close it, on its loop: what was written is sent first, and TLS says close_notify."""
        if self._is_closing:
            # Once: asyncio's TLS forgets what is below it at a second call.
            return
        self._is_closing = True
        for descriptor in self.descriptors:
            # The loop closes it, now or later, and must not wait in that.
            if descriptor.is_ours:
                close_at_once(descriptor.number)
        self.native.close()

    def _watch(self, closed: concurrent.futures.Future[None], pause: float) -> None:
        """Look, on the loop, until it is closed."""
        if not self.has_closed():
            self.loop.call_later(pause, self._watch, closed, min(pause * 2, _LAST_LOOK))
        elif not closed.done():
            closed.set_result(None)

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
        if not self.loop.is_running():
            self._close_by_force()
            self._close_early()
            if self.has_closed():
                return self._account(Outcome.RELEASED)
            raise BusyResourceError("closed, but its event loop no longer runs to let go of it")
        if self.loop in (running_loop(), held_up_loop()):
            with _not_minding(self.loop):
                self._close_by_force()
            self._close_early()
            # What is left to close is closed by the loop's next turn, which needs no one.
            return self._account(Outcome.RELEASED)
        if self._ended is None:
            self._ended = call_on_loop(self.loop, self._close_by_force)
        if self._ended is not None:
            wait_a_turn([self._ended])
        if self.has_closed():
            return self._account(Outcome.RELEASED)
        raise BusyResourceError("told to close, but its event loop has not closed it yet")

    def abort(self) -> None:
        """Close it at once, on its loop, and count what it has not sent."""
        if self.has_closed():
            return
        self.lost = max(self.lost, self.unsent())
        abort = getattr(self.native, "abort", None)
        if abort is not None and (self.lost or not self.is_plain):
            # uvloop's that only reads has one that says that it has none.
            with contextlib.suppress(NotImplementedError):
                abort()

    @property
    def is_plain(self) -> bool:
        """Whether, with nothing left to send, it closes by itself at once."""
        return self._below is None and package_of(type(self.native)) == "asyncio"

    def _close_by_force(self) -> None:
        """Close it at once, on its loop, or where that does nothing meanwhile."""
        self.close_gently()
        self.abort()

    def _close_early(self) -> None:
        """Do here what can be, where a turn of the loop is not waited for, or does not come."""

    def _close_without_loop(self) -> None:
        """Close what a closed loop has left open, through the object that has the number."""
        self.lost = self.unsent()
        for each, descriptor in zip(self.parts, self.descriptors, strict=True):
            if descriptor.is_ours:
                close_at_once(descriptor.number)
                getattr(each, "_sock", each).close()
        if any(each.is_open for each in self.descriptors):
            raise ReleaseError("its event loop is closed, and what has its number does not show")

    def _leave_alone(self) -> None:
        """Have its sockets close no number that is another's by now, when they are collected."""
        for each, descriptor in zip(self.parts, self.descriptors, strict=True):
            sock = getattr(each, "_sock", None)
            if isinstance(sock, socket.socket) and sock.fileno() == descriptor.number:
                sock.detach()

    def _account(self, outcome: Outcome) -> Outcome:
        if self.lost:
            lost, self.lost = self.lost, 0
            raise ReleaseError(
                f"closed, but {lost} bytes written to it were not sent, and are lost"
            )
        return outcome


@contextlib.contextmanager
def _not_minding(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have a loop in debug mode take calls from a thread that its own thread waits for."""
    minds = loop is not running_loop() and loop.get_debug()
    if minds:
        loop.set_debug(False)
    try:
        yield
    finally:
        if minds:
            loop.set_debug(True)


# -- what they can do ------------------------------------------------------------


def is_transport(thing: object) -> bool:
    """Tell whether something is a transport of an event loop."""
    return is_transport_class(type(thing))


def is_transport_class(cls: type) -> bool:
    """Tell whether instances of a class are transports of an event loop."""
    return _has(cls, _TRANSPORT)


def transport_of(thing: Any) -> Any:
    """Return the transport of a stream writer; anything else as it is."""
    is_writer = _has(type(thing), _WRITER) and is_transport(thing.transport)
    return thing.transport if is_writer else thing


def parts_of(transport: Any) -> tuple[Any, ...]:
    """Return the socket or the pipe of a transport, none if it shows neither."""
    for name in ("socket", "pipe"):
        if (own := transport.get_extra_info(name)) is not None:
            return (own,)
    return ()


def loop_of(transport: Any) -> asyncio.AbstractEventLoop | None:
    """Return the event loop that a transport belongs to; None if it has closed and forgotten it."""
    loop: asyncio.AbstractEventLoop | None = getattr(transport, "_loop", None)
    if loop is not None:
        return loop
    # uvloop's shows it to the garbage collector alone.
    known = gc.get_referents(transport)
    return next((each for each in known if kind_of(type(each)) == "loop"), None)


def _has(cls: type, names: Iterable[str]) -> bool:
    return all(any(name in vars(each) for each in cls.__mro__) for name in names)


def _below(transport: Any) -> Any:
    """The plain transport below one of TLS."""
    protocol = getattr(transport, "_ssl_protocol", None)
    return getattr(protocol, "_transport", None)
