"""multiprocessing's connections and listeners."""

from __future__ import annotations

import _socket
import contextlib
import os
import socket
import stat
from functools import partial
from typing import TYPE_CHECKING, Final, Self, final

from probate import BusyResourceError, Outcome
from probate.system import (
    OwnedDescriptor,
    blocked_in,
    open_owned,
    opened_all,
    path_of,
    sharers_of,
    unlink_if_same,
)
from probate_ipc.handle import Handle

if TYPE_CHECKING:
    from multiprocessing.connection import Connection, Listener

_IN_PIPE: Final = "a thread is blocked in it, which nothing but the other end of its pipe wakes"
_SHARED: Final = (
    "a thread is blocked in it, and {}, for whom a shutdown(2) would end it: wake the thread, or "
    "close the other"
)


def new_pair(*, duplex: bool) -> tuple[Connection, Connection]:
    """Connect two ends; unless `duplex`, the first only receives and the second only sends.

    Both sorts are socket pairs, never pipes: shutdown(2) wakes whoever is blocked in one, in
    this process or another. Raises OSError.
    """
    # Here, since it takes longer than the rest of this kind.
    from multiprocessing.connection import Connection

    return opened_all(
        partial(map, socket.SocketType.detach, _socket.socketpair()),
        lambda ends: (
            Connection(ends[0].number, readable=True, writable=duplex),
            Connection(ends[1].number, readable=duplex, writable=True),
        ),
    )


@final
class ConnectionHandle(Handle):
    """A `multiprocessing.connection.Connection` that somebody owns."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._descriptor = OwnedDescriptor(connection.fileno())
        self._number = self._descriptor.number
        self._name = path_of(self._number)

    @property
    def identity(self) -> object:
        """The connection."""
        return self.connection

    @property
    def number(self) -> int:
        """Its descriptor number, while it is its own."""
        return self._number if self._is_ours and not self.connection.closed else -1

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, or its number is another's by now."""
        return self.connection.closed or not self._is_ours

    def describe(self) -> str:
        """Describe it by its descriptor and what that refers to."""
        return f"connection {self._name}, fd {self._number}"

    def stop_sending(self) -> None:
        """Wake whoever is blocked in a send here, with BrokenPipeError."""
        self._wake(socket.SHUT_WR)

    def wake_waiters(self) -> None:
        """Wake whoever is blocked in it here, with EOFError or BrokenPipeError."""
        self._wake(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end only: a child that has a copy keeps it.

        Raises BusyResourceError if a thread is blocked in it that cannot be woken.
        """
        if self.connection.closed:
            return
        # Nobody enters it any more; nor is another's number closed when the object is collected.
        self._handle = None
        try:
            if reason := self._wake(socket.SHUT_RDWR):
                raise BusyResourceError(reason)
            self._descriptor.close()
        except BusyResourceError:
            self._handle = self._number
            raise

    def give_back(self) -> Outcome:
        """Close it, after waking whoever is blocked in it here; its peer reads end of file."""
        is_gone = self.closed
        self.close()
        return Outcome.ALREADY_GONE if is_gone else Outcome.RELEASED

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """Its number."""
        return (self._descriptor,)

    @property
    def _is_ours(self) -> bool:
        return self._descriptor.is_ours

    def _wake(self, how: int) -> str:
        return wake_blocked(self._number, how) if self._is_ours else ""

    @property
    def _handle(self) -> int | None:
        """What the connection keeps its number in, for which there is no public name."""
        handle: int | None = vars(self.connection)["_handle"]
        return handle

    @_handle.setter
    def _handle(self, handle: int | None) -> None:
        vars(self.connection)["_handle"] = handle


@final
class ListenerHandle(Handle):
    """A `multiprocessing.connection.Listener` that somebody owns.

    It would unlink its path by name when it is closed, whosever the path is by then: it is kept
    from that, and the path unlinked if it is the one that the listener had when it was adopted.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        sock = listening_socket(listener)
        self._descriptor = None if sock is None else OwnedDescriptor(sock.fileno(), sock.fileno)
        self._bound = _BoundPath.of(listener)

    @property
    def identity(self) -> object:
        """The listener."""
        return self.listener

    @property
    def number(self) -> int:
        """The descriptor number of its socket."""
        sock = self._socket
        return -1 if sock is None else sock.fileno()

    @property
    def closed(self) -> bool:
        """Whether the listener is closed, or its number is another's by now."""
        return self._socket is None

    def describe(self) -> str:
        """Describe it by its address."""
        return f"listener at {self.listener.address!r}"

    def stop_sending(self) -> None:
        """Wake whoever is blocked in accept, with OSError (EINVAL)."""
        self.wake_waiters()

    def wake_waiters(self) -> None:
        """Wake whoever is blocked in accept here."""
        wake_blocked(self.number, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, and unlink its path if that is still its own. Raises OSError."""
        self.give_back()

    def give_back(self) -> Outcome:
        """Close it, and unlink its path; what of it is another's by now is left alone.

        Raises BusyResourceError if a thread is blocked in it that cannot be woken.
        """
        if reason := wake_blocked(self.number, socket.SHUT_RDWR):
            raise BusyResourceError(reason)
        # The standard library's own way to say that there is nothing to unlink.
        unlink = getattr(getattr(self.listener, "_listener", None), "_unlink", None)
        if unlink is not None:
            unlink.cancel()
        stranger = listening_socket(self.listener)
        was_open = self._socket is not None
        try:
            unlinked = Outcome.ALREADY_GONE if self._bound is None else self._bound.unlink()
        finally:
            if stranger is not None and not was_open:
                # Not even when the object is collected is what has the number now to be closed.
                stranger.detach()
            self.listener.close()
        return Outcome.RELEASED if was_open else unlinked

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """Its socket's number, and what pins its path."""
        pinned = () if self._bound is None else (self._bound.descriptor,)
        return pinned if self._descriptor is None else (self._descriptor, *pinned)

    @property
    def _socket(self) -> socket.socket | None:
        """The socket, while its number is its own."""
        sock = listening_socket(self.listener)
        is_ours = self._descriptor is not None and self._descriptor.is_ours
        return sock if is_ours else None


@final
class _BoundPath:
    """The path of a unix listener, pinned so that it can be told from a successor's.

    The socket alone does not pin it: its number may be closed by anybody.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        pin = partial(os.open, path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        #: What pins it.
        self.descriptor = open_owned(pin)

    @classmethod
    def of(cls, listener: Listener) -> Self | None:
        """The path of a listener; None if it has none, or it is not there."""
        address = listener.address
        if isinstance(address, str) and address and not address.startswith("\0"):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.lstat(address).st_mode):
                    return cls(address)
        return None

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            self.descriptor.close()

    def unlink(self) -> Outcome:
        """Unlink it if it still is what was pinned. Idempotent."""
        if not self.descriptor.is_ours:
            return Outcome.ALREADY_GONE
        try:
            return unlink_if_same(self._path, os.fstat(self.descriptor.number))
        finally:
            self.descriptor.close()


def listening_socket(listener: Listener) -> socket.socket | None:
    """Return the socket behind a listener, None if it is closed: there is no public name for it."""
    sock = getattr(getattr(listener, "_listener", None), "_socket", None)
    return sock if isinstance(sock, socket.socket) and sock.fileno() != -1 else None


def wake_blocked(number: int, how: int) -> str:
    """Wake the threads of this process that are blocked in a socket (shutdown(2)), if there are.

    Says why not, if they cannot be. Where nobody is blocked nothing is shut down: that acts on the
    open file description, which a dup or a child may share and go on using.
    """
    waiting = blocked_in()
    if number == -1 or (waiting and number not in waiting.inside | waiting.in_poll):
        return ""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        return _IN_PIPE if waiting else ""
    if others := sharers_of(number):
        return _SHARED.format(others) if waiting else ""
    # Of an object of its own, so that nobody closes the number for us.
    with socket.socket(fileno=os.dup(number)) as sock, contextlib.suppress(OSError):
        sock.shutdown(how)
    return ""
