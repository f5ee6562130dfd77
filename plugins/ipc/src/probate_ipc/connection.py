"""multiprocessing's connections and listeners."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from multiprocessing.connection import Connection, Listener
from typing import TYPE_CHECKING, Self, final

from probate import Outcome
from probate.system import close_if_same, identify, is_still, path_of, unlink_if_same
from probate_ipc.handle import Handle

if TYPE_CHECKING:
    from collections.abc import Iterator


def new_pair(*, duplex: bool) -> tuple[Connection, Connection]:
    """Connect two ends; unless `duplex`, the first only receives and the second only sends.

    Both sorts are socket pairs, never pipes: shutdown(2) wakes whoever is blocked in one, in
    this process or another. Raises OSError.
    """
    first, second = socket.socketpair()
    return (
        Connection(first.detach(), readable=True, writable=duplex),
        Connection(second.detach(), readable=duplex, writable=True),
    )


@final
class ConnectionHandle(Handle):
    """A `multiprocessing.connection.Connection` that somebody owns."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._number = connection.fileno()
        self._identity = identify(self._number)
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
        """Send nothing more: the peer reads what is there, then end of file."""
        self._shut(socket.SHUT_WR)

    def wake_waiters(self) -> None:
        """Wake whoever is blocked in it, with EOFError or BrokenPipeError."""
        self._shut(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end only: a child that has a copy keeps it."""
        if self._is_ours:
            self.connection.close()
        else:
            # Not even when the object is collected is what has the number now to be closed.
            self.connection._handle = None  # type: ignore[attr-defined]  # noqa: SLF001  no other way

    def give_back(self) -> Outcome:
        """Close it, after waking whoever is blocked in it at either end."""
        if self.closed:
            self.close()
            return Outcome.ALREADY_GONE
        self.wake_waiters()
        return super().give_back()

    @property
    def _is_ours(self) -> bool:
        return is_still(self._number, self._identity)

    def _shut(self, how: int) -> None:
        if self.closed:
            return
        with contextlib.suppress(OSError), _as_socket(self.connection) as sock:
            sock.shutdown(how)


@final
class ListenerHandle(Handle):
    """A `multiprocessing.connection.Listener` that somebody owns.

    It would unlink its path by name when it is closed, whosever the path is by then: it is kept
    from that, and the path unlinked if it is the one that the listener had when it was adopted.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        sock = listening_socket(listener)
        self._identity = None if sock is None else identify(sock.fileno())
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
        """Accept nobody more: whoever is blocked in accept gets OSError (EINVAL)."""
        self.wake_waiters()

    def wake_waiters(self) -> None:
        """Wake whoever is blocked in accept; nobody can connect any more."""
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, and unlink its path if that is still its own. Raises OSError."""
        self.give_back()

    def give_back(self) -> Outcome:
        """Close it, and unlink its path; what of it is another's by now is left alone."""
        self.wake_waiters()
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
    def _socket(self) -> socket.socket | None:
        """The socket, while its number is its own."""
        sock = listening_socket(self.listener)
        if sock is None or self._identity is None or not is_still(sock.fileno(), self._identity):
            return None
        return sock


@final
class _BoundPath:
    """The path of a unix listener, pinned so that it can be told from a successor's.

    The socket alone does not pin it: its number may be closed by anybody.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pin = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._identity = identify(self._pin)

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
        self._unpin()

    def unlink(self) -> Outcome:
        """Unlink it if it still is what was pinned. Idempotent."""
        if not is_still(self._pin, self._identity):
            return Outcome.ALREADY_GONE
        try:
            return unlink_if_same(self._path, os.fstat(self._pin))
        finally:
            self._unpin()

    def _unpin(self) -> None:
        pin, self._pin = self._pin, -1
        close_if_same(pin, self._identity)


def listening_socket(listener: Listener) -> socket.socket | None:
    """Return the socket behind a listener, None if it is closed: there is no public name for it."""
    sock = getattr(getattr(listener, "_listener", None), "_socket", None)
    return sock if isinstance(sock, socket.socket) and sock.fileno() != -1 else None


@contextlib.contextmanager
def _as_socket(connection: Connection) -> Iterator[socket.socket]:
    """Use the socket of a connection. Raises OSError (ENOTSOCK) for one on a pipe."""
    sock = socket.socket(fileno=connection.fileno())
    try:
        yield sock
    finally:
        sock.detach()
