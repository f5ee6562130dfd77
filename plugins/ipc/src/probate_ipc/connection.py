"""multiprocessing's connections and listeners."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from multiprocessing.connection import Connection, Listener
from typing import TYPE_CHECKING, final

from probate import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator


def new_pair(*, duplex: bool) -> tuple[Connection, Connection]:
    """Two connected ends; unless `duplex`, the first only receives and the second only sends.

    Both sorts are socket pairs, never pipes: shutdown(2) wakes whoever is blocked in one, in
    this process or another. Raises OSError.
    """
    first, second = socket.socketpair()
    return (
        Connection(first.detach(), readable=True, writable=duplex),
        Connection(second.detach(), readable=duplex, writable=True),
    )


@final
class ConnectionHandle:
    """A `multiprocessing.connection.Connection` that somebody owns."""

    __slots__ = ("identity",)

    reserved = 0

    def __init__(self, connection: Connection) -> None:
        self.identity = connection

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        return self.identity.closed

    def describe(self) -> str:
        """The connection's descriptor and what it refers to."""
        fd = self.identity.fileno()
        return f"connection {os.readlink(f'/proc/self/fd/{fd}')}, fd {fd}"

    def stop_sending(self) -> None:
        """Send nothing more: the peer reads what is there, then end of file."""
        self._shut(socket.SHUT_WR)

    def wake_waiters(self) -> None:
        """Wake whoever is blocked in it, with EOFError or BrokenPipeError."""
        self._shut(socket.SHUT_RDWR)

    def give_back(self) -> Outcome:
        """Close it, after waking whoever is blocked in it."""
        if self.closed:
            return Outcome.ALREADY_GONE
        self.wake_waiters()
        self.identity.close()
        return Outcome.RELEASED

    def _shut(self, how: int) -> None:
        if self.closed:
            return
        with contextlib.suppress(OSError), _as_socket(self.identity) as sock:
            sock.shutdown(how)


@final
class ListenerHandle:
    """A `multiprocessing.connection.Listener` that somebody owns.

    It unlinks its path by name when it is closed, whosever the path is by then; it is kept from
    that unless the path is the one that it had when it was adopted, by device and inode.
    """

    __slots__ = ("_bound", "identity")

    reserved = 0

    def __init__(self, listener: Listener) -> None:
        self.identity = listener
        self._bound = _path_identity(listener)

    @property
    def closed(self) -> bool:
        """Whether the listener is closed."""
        return listening_socket(self.identity) is None

    def describe(self) -> str:
        """The listener's address."""
        return f"listener at {self.identity.address!r}"

    def stop_sending(self) -> None:
        """Accept nobody more: whoever is blocked in accept gets OSError (EINVAL)."""
        sock = listening_socket(self.identity)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def wake_waiters(self) -> None:
        """As `refuse_sends`."""
        self.stop_sending()

    def give_back(self) -> Outcome:
        """Close it, and have its path unlinked if that is still its own."""
        if self.closed:
            return Outcome.ALREADY_GONE
        self.stop_sending()
        if self._bound is not None and _path_identity(self.identity) != self._bound:
            # The standard library's own way to say that there is nothing to unlink.
            inner = getattr(self.identity, "_listener", None)
            unlink = getattr(inner, "_unlink", None)
            if unlink is not None:
                unlink.cancel()
        self.identity.close()
        return Outcome.RELEASED


def listening_socket(listener: Listener) -> socket.socket | None:
    """The socket behind a listener, for which it has no public name; None if it is closed."""
    sock = getattr(getattr(listener, "_listener", None), "_socket", None)
    return sock if isinstance(sock, socket.socket) and sock.fileno() != -1 else None


def _path_identity(listener: Listener) -> tuple[int, int] | None:
    """Device and inode of a unix listener's path; None if there is no such path."""
    address = listener.address
    if isinstance(address, str) and address and not address.startswith("\0"):
        with contextlib.suppress(OSError):
            status = os.lstat(address)
            if stat.S_ISSOCK(status.st_mode):
                return status.st_dev, status.st_ino
    return None


@contextlib.contextmanager
def _as_socket(connection: Connection) -> Iterator[socket.socket]:
    """The socket of a connection, for a moment. Raises OSError (ENOTSOCK) for one on a pipe."""
    sock = socket.socket(fileno=connection.fileno())
    try:
        yield sock
    finally:
        sock.detach()
