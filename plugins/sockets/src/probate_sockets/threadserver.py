"""Servers of `socketserver`: http.server, xmlrpc, wsgiref, and what others derive from them."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, final

from probate import BusyResourceError, Outcome
from probate.system import (
    TURN,
    CallThread,
    OwnedDescriptor,
    running_loop,
    sharers_of,
    wait_a_turn,
)
from probate_sockets import polling
from probate_sockets.unix import bound_path, unlink_bound

if TYPE_CHECKING:
    import concurrent.futures


def is_thread_server(thing: object) -> bool:
    """Whether it is a server of `socketserver`."""
    module = sys.modules.get("socketserver")
    return module is not None and isinstance(thing, module.BaseServer)


@final
class ThreadServer:
    """A server whose `serve_forever` runs on a thread, if it does, and its connections."""

    __slots__ = ("_closing", "asked", "bound", "descriptor", "native")

    def __init__(self, native: Any) -> None:
        self.native = native
        self.asked = False
        #: Its listener's number. Raises OSError if that was closed elsewhere.
        self.descriptor = OwnedDescriptor(int(native.fileno()), native.fileno)
        self.bound = bound_path(native.socket)
        self._closing: concurrent.futures.Future[None] | None = None

    def __repr__(self) -> str:
        return f"{type(self.native).__name__} {self.native.server_address}"

    @property
    def adopted(self) -> object:
        """What was adopted."""
        return self.native

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """Its listener's number, as a table wants it."""
        return (self.descriptor,)

    @property
    def is_closed(self) -> bool:
        """Whether its listener is gone."""
        return not self.descriptor.is_ours

    @property
    def is_serving(self) -> bool:
        """Whether `serve_forever` runs on any thread."""
        return any(each is self.native for each in polling.serving())

    def ask_to_close(self) -> concurrent.futures.Future[None] | None:
        """Ask `serve_forever` to end; return a future for when it has, None if it does not run."""
        if not self.is_serving:
            return None
        self.asked = True
        # It waits, until the next turn of that loop at the latest.
        thread = CallThread("probate-server-shutdown")
        try:
            return thread.submit(self.native.shutdown)
        finally:
            thread.abandon()

    def release(self) -> Outcome:
        """Close it, and the connections that it serves. Raises BusyResourceError until they end."""
        if self.is_closed and self._closing is None:
            self._leave_alone()
            return Outcome.RELEASED if self.asked else Outcome.ALREADY_GONE
        if self.is_serving:
            self.ask_to_close()
            if not sharers_of(self.descriptor.number):
                # It looks after what it was asked at once.
                with contextlib.suppress(OSError):
                    self.native.socket.shutdown(socket.SHUT_RDWR)
            if not self._ends():
                raise BusyResourceError("its serve_forever was told to end, and has not yet")
        if self.bound is not None:
            unlink_bound(self.bound)
            self.bound = None
        handlers = self._handlers()
        for handler in handlers:
            _hang_up(handler.request)
        if self._closing is None:
            if self.is_closed:
                self._leave_alone()
            thread = CallThread("probate-server-close")
            self._closing = thread.submit(self.native.server_close)
            thread.abandon()
        wait_a_turn([self._closing])
        if not self._closing.done() or (handlers and self._handlers()):
            raise BusyResourceError(
                f"closed, but {len(self._handlers())} of its handlers still run"
            )
        self._closing.result()
        if children := getattr(self.native, "active_children", None):
            raise BusyResourceError(f"closed, but its children {sorted(children)} serve on")
        return Outcome.RELEASED

    def _leave_alone(self) -> None:
        """Have it poll no number that is another's by now, nor close it when it is collected."""
        if self.is_serving:
            self.ask_to_close()
        if self.native.socket.fileno() == self.descriptor.number:
            self.native.socket.detach()

    def _ends(self) -> bool:
        """Wait for `serve_forever` to end, but not on the thread of an event loop."""
        ended = getattr(self.native, "_BaseServer__is_shut_down", None)
        if isinstance(ended, threading.Event) and running_loop() is None:
            ended.wait(TURN)
        return not self.is_serving

    def _handlers(self) -> list[Any]:
        """Handlers of its connections, as far as they run on threads of this process."""
        module = sys.modules["socketserver"]
        return [
            each
            for each in polling.running(module.BaseRequestHandler.__init__)
            if getattr(each, "server", None) is self.native
        ]


def _hang_up(request: object) -> None:
    """End a connection that a handler may be blocked in."""
    if not isinstance(request, socket.socket) or request.fileno() == -1:
        return
    if not sharers_of(request.fileno()):
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)
