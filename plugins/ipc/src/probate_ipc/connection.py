"""multiprocessing's connections and listeners."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from multiprocessing.connection import Connection, Listener
from typing import TYPE_CHECKING, final

from probate.system import unlink_if_same
from probate_ipc.handle import Handle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import Outcome


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

    @property
    def identity(self) -> object:
        """The connection."""
        return self.connection

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        return self.connection.closed

    def describe(self) -> str:
        """Describe it by its descriptor and what that refers to."""
        fd = self.connection.fileno()
        return f"connection {os.readlink(f'/proc/self/fd/{fd}')}, fd {fd}"

    def stop_sending(self) -> None:
        """Send nothing more: the peer reads what is there, then end of file."""
        self._shut(socket.SHUT_WR)

    def wake_waiters(self) -> None:
        """Wake whoever is blocked in it, with EOFError or BrokenPipeError."""
        self._shut(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end only: a child that has a copy keeps it."""
        self.connection.close()

    def give_back(self) -> Outcome:
        """Close it, after waking whoever is blocked in it at either end."""
        self.wake_waiters()
        return super().give_back()

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
        self._bound = _bound_path(listener)

    @property
    def identity(self) -> object:
        """The listener."""
        return self.listener

    @property
    def closed(self) -> bool:
        """Whether the listener is closed."""
        return listening_socket(self.listener) is None

    def describe(self) -> str:
        """Describe it by its address."""
        return f"listener at {self.listener.address!r}"

    def stop_sending(self) -> None:
        """Accept nobody more: whoever is blocked in accept gets OSError (EINVAL)."""
        self.wake_waiters()

    def wake_waiters(self) -> None:
        """Wake whoever is blocked in accept; nobody can connect any more."""
        sock = listening_socket(self.listener)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, and unlink its path if that is still its own. Raises OSError."""
        self.wake_waiters()
        # The standard library's own way to say that there is nothing to unlink.
        unlink = getattr(getattr(self.listener, "_listener", None), "_unlink", None)
        if unlink is not None:
            unlink.cancel()
        try:
            if self._bound is not None:
                # Before it is closed: until then the inode number is no other's.
                unlink_if_same(*self._bound)
        finally:
            self.listener.close()


def listening_socket(listener: Listener) -> socket.socket | None:
    """Return the socket behind a listener, None if it is closed: there is no public name for it."""
    sock = getattr(getattr(listener, "_listener", None), "_socket", None)
    return sock if isinstance(sock, socket.socket) and sock.fileno() != -1 else None


def _bound_path(listener: Listener) -> tuple[str, os.stat_result] | None:
    """Return the path of a unix listener, and what it is; None if there is no such path."""
    address = listener.address
    if isinstance(address, str) and address and not address.startswith("\0"):
        with contextlib.suppress(OSError):
            status = os.lstat(address)
            if stat.S_ISSOCK(status.st_mode):
                return address, status
    return None


@contextlib.contextmanager
def _as_socket(connection: Connection) -> Iterator[socket.socket]:
    """Use the socket of a connection. Raises OSError (ENOTSOCK) for one on a pipe."""
    sock = socket.socket(fileno=connection.fileno())
    try:
        yield sock
    finally:
        sock.detach()
