"""Plain sockets: what is done before one is closed, so that nobody else is harmed."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from probate import BusyResourceError, Outcome
from probate.errors import RefusedResourceError, ReleaseError
from probate.system import (
    OwnedDescriptor,
    blocked_in,
    give_up_wakeup,
    has_other_threads,
    running_loop,
    sharers_of,
    take,
)
from probate_sockets import blocked, makefiles, onloop, unix
from probate_sockets.address import shown

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable

#: `struct linger { on, 0 seconds }`: close sends a reset and discards what is unsent (socket(7)).
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

#: Close returns at once, and the kernel goes on sending.
_SEND_IN_BACKGROUND: Final = struct.pack("ii", 0, 0)

#: References to a socket that nobody else holds: the entry's, its descriptor's, and the question's.
OURS: Final = 3

#: In a cleanup the table holds it, too.
OURS_IN_CLEANUP: Final = 4


@final
class PlainSocket:
    """A socket object, and what its number referred to when it was acquired."""

    __slots__ = ("_above", "_is_waited_for", "bound", "descriptor", "loop", "native")

    def __init__(self, native: socket.socket) -> None:
        self.native = native
        #: Its number. Raises OSError if that was closed elsewhere.
        self.descriptor = OwnedDescriptor(native.fileno(), native.fileno)
        #: The unix path that it would leave behind.
        self.bound = unix.bound_path(native) if native.family == socket.AF_UNIX else None
        #: The event loop that ran where it was acquired, which may poll it.
        loop = running_loop()
        self.loop = None if loop is None else weakref.ref(loop)
        #: Servers and transports that were found to be made of it.
        self._above: list[onloop.Above] = []
        #: Whether an event loop was told, which counts as a user until those who wait have heard.
        self._is_waited_for = False

    def __repr__(self) -> str:
        return describe(self.native)

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """Its number, as a table wants it."""
        return (self.descriptor,)

    @property
    def number(self) -> int:
        """The number that it had when it was acquired."""
        return self.descriptor.number

    @property
    def loops(self) -> list[Any]:
        """Event loops that are likely to poll it."""
        noted = None if self.loop is None else self.loop()
        return [loop for loop in (noted, running_loop()) if loop is not None]

    def is_held(self, ours: int) -> bool:
        """Whether anybody but its owner may use it: has the object, or polls its number.

        Threads that are blocked in it, files made of it, selectors and loops all hold the object.
        """
        return sys.getrefcount(self.native) > ours or (
            self.loop is not None and onloop.is_polled_by(self.loops, self.number)
        )

    def put_above(self, made: onloop.Above) -> None:
        """Close this, a server, transport or stream that was made of it, instead of it."""
        if not self.has_above(made.native):
            self._above.append(made)

    def has_above(self, native: object) -> bool:
        """Tell whether a server, transport or stream is known to have been made of it."""
        return any(native is each.native or native is each.adopted for each in self._above)

    @property
    def is_below(self) -> bool:
        """Whether something is known to have been made of it."""
        return bool(self._above)

    # -- gently ---------------------------------------------------------------

    def ask_to_close(self) -> concurrent.futures.Future[None] | None:
        """Close servers and transports that were made of it; wake whoever waits for connections."""
        if not self.descriptor.is_ours:
            return None
        use = onloop.use_of(self.native)
        asked = [each.ask_to_close() for each in self._find_above(use)]
        futures = [future for future in asked if future is not None]
        if not asked and use.is_waited_for and is_listener(self.native):
            with contextlib.suppress(BusyResourceError):
                self._wake(use, socket.SHUT_RDWR)
        return futures[0] if futures else None

    # -- by force -------------------------------------------------------------

    def release(
        self, *, abort: bool = False, may_lose: bool = False, is_unheld: bool = False
    ) -> Outcome:
        """Close the socket, or what was made of it, having woken and detached who uses it.

        With `abort` a TCP peer gets a reset, otherwise what is still unsent is sent. Raises
        BusyResourceError if somebody uses it who cannot be detached (now), ReleaseError if
        something unsent is lost, RefusedResourceError if its number was handed to somebody else,
        OSError if closing fails; the descriptor is gone all the same then (close(2)).
        """
        if self._above:
            return self._release_above()
        sock = self.native
        if not self.descriptor.is_ours:
            return self._leave_alone()
        was_woken = False
        lost: list[str] = []
        if not is_unheld:
            use = onloop.use_of(sock)
            if self._find_above(use):
                return self._release_above()
            was_woken = self._wake(use, socket.SHUT_RD if abort else socket.SHUT_RDWR)
            told = onloop.detach(sock, self.loops, use, is_woken=was_woken)
            if told.lost:
                lost.append(f"{told.lost} bytes that were not written yet")
            self._is_waited_for = bool(told.waiting)
        if sock.gettimeout() is not None:
            give_up_wakeup((self.number,))
        lost += self._prepare(abort=abort, was_woken=was_woken)
        if makefiles.is_used_above(sock) and not self._is_waited_for:
            if was_woken:
                raise BusyResourceError("a thread was blocked in it, and has just been woken")
            lost += makefiles.close_above(sock)
        if self.bound is not None:
            unix.unlink_bound(self.bound)
            self.bound = None
        if not self._close(is_unheld=is_unheld or was_woken):
            return Outcome.ALREADY_GONE
        if lost and not may_lose:
            raise ReleaseError(f"closed, and lost is {', '.join(lost)}")
        return Outcome.RELEASED

    def _leave_alone(self) -> Outcome:
        """Touch the number no more. Raises RefusedResourceError if it was handed to others."""
        if self.native.fileno() == -1 and self.descriptor.is_open:
            raise RefusedResourceError(
                f"its number {self.number} was detached from it, and is somebody else's: "
                "adopt what has it now"
            )
        # Not even when the object is collected is what has the number now to be closed.
        self.native.detach()
        return Outcome.ALREADY_GONE

    def _find_above(self, use: onloop.Use) -> list[onloop.Above]:
        if not self._above:
            self._above = onloop.owners_of(self.native, self.loops, use)
        return self._above

    def _release_above(self) -> Outcome:
        """Release what was made of it, which closes it."""
        outcomes = [each.release() for each in self._above]
        if Outcome.RELEASED in outcomes:
            return Outcome.RELEASED
        self._above.clear()
        return self.release()

    def _wake(self, use: onloop.Use, how: int) -> bool:
        """Wake the threads that are blocked in it, or poll it; whether there may be any.

        Raises BusyResourceError if there are and others share it, whom a shutdown would harm.
        """
        if use.is_idle:
            return False
        if others := sharers_of(use.number):
            if use.is_waited_for and not use.is_in_poll:
                raise BusyResourceError(
                    f"a thread is blocked in it, and {others}, whom a shutdown(2) would harm: "
                    "wake the thread, or close the other"
                )
            return False
        # Where nothing is connected the kernel wakes whoever waits, and then complains.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.native, how)
        return True

    def _prepare(self, *, abort: bool, was_woken: bool) -> list[str]:
        """Say good-bye to a peer, as its protocol does; return what will be lost, if anything.

        Nothing of it is done to a socket that others share: for them it goes on.
        """
        sock = self.native
        if sock.type != socket.SOCK_STREAM or sock.family == socket.AF_UNIX:
            return []
        has_tls = getattr(sock, "_sslobj", None) is not None
        lingers, seconds = struct.unpack(
            "ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        )
        unsent = _pending(sock, termios.TIOCOUTQ)
        is_reset = abort or (lingers and not seconds) or _pending(sock, termios.FIONREAD)
        if not (abort or has_tls or lingers or (unsent and is_reset)) or sharers_of(sock.fileno()):
            return []
        if abort:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        elif lingers and seconds:
            # Close would block, also where the socket does not, and the loop of whoever calls.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _SEND_IN_BACKGROUND)
        if has_tls and not abort:
            if was_woken:
                raise BusyResourceError("a thread was blocked in it, and has just been woken")
            _say_close_notify(sock)
        return [f"what had not arrived, {unsent} bytes, by a reset"] if unsent and is_reset else []

    @property
    def _detaching(self) -> Callable[[], int]:
        """What detaches its number: of C, but for sockets of gevent's."""
        native: Any = self.native
        is_of_c = isinstance(native, socket.SocketType)
        return partial(socket.SocketType.detach, native) if is_of_c else native.detach

    def _close(self, *, is_unheld: bool) -> bool:
        """Close the number; False if somebody has just done so."""
        detached: list[int] = []
        try:
            # Noted in the same step: whatever falls in, it is closed.
            take(detached, self._detaching)
            (number,) = detached
            if number == -1:
                return False
            # From here on no thread finds it that was not there before.
            if not is_unheld and has_other_threads():
                waiting = blocked_in()
                if (waiting is None or number in waiting.inside) and not sharers_of(number):
                    blocked.shut_down(number)
        finally:
            for each in detached:
                if each != -1:
                    os.close(each)
        # For Python, too.
        self.native.detach()
        return True


def is_listener(sock: socket.socket) -> bool:
    """Whether the kernel has it listening (SO_ACCEPTCONN, socket(7)); False if closed."""
    with contextlib.suppress(OSError):
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return False


def _pending(sock: socket.socket, request: int) -> int:
    """Bytes in a queue of a stream (tcp(7), SIOCOUTQ and SIOCINQ); 0 if it has none."""
    number = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), request, number)
    except OSError:
        return 0
    return number[0]


def _say_close_notify(sock: Any) -> None:
    """Tell a TLS peer that this is the end, without waiting for its answer (RFC 8446, 6.1)."""
    # It wants to wait for the peer's, or was never connected.
    with contextlib.suppress(OSError, ValueError):
        sock.settimeout(0)
        sock.unwrap()


def describe(sock: socket.socket) -> str:
    """Family, type and addresses, as far as the kernel still knows them."""
    parts = [sock.family.name.removeprefix("AF_"), sock.type.name.removeprefix("SOCK_").lower()]
    if is_listener(sock):
        parts.append("listener")
    with contextlib.suppress(OSError):
        parts.append(shown(sock.getsockname()))
    with contextlib.suppress(OSError):
        parts.append(f"to {shown(sock.getpeername())}")
    return " ".join(part for part in parts if part)
