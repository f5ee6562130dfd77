"""The socket manager: makes sockets that belong to a process."""

from __future__ import annotations

import contextlib
import socket
import threading
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, final

from probate import NotOwnedError, OwnershipTable, pid_or_current, runs_inline
from probate.journal import Named, name_asked_for, reclaim_path, users_of_socket
from probate.system import blocked_in, built, number_of, transport_of
from probate_sockets import adoption, unix
from probate_sockets.address import Endpoint, is_abstract, resolve, unix_path
from probate_sockets.many import close_many, in_use
from probate_sockets.plain import OURS, OURS_IN_CLEANUP, PlainSocket

if TYPE_CHECKING:
    import concurrent.futures
    import os
    from collections.abc import Callable

    from probate import CleanupStats, Outcome, ResourceId, ResourceRecord
    from probate_sockets.adoption import Owned
    from probate_sockets.unix import BoundPath


@final
class SocketManager:
    """Makes plain `socket.socket` objects, each owned by one process.

    Every method takes the owner's pid first; within `with manager.process(...)` it may be left
    out. With `abort`, cleanup resets TCP connections instead of closing them gracefully.

    All raise ProcessTerminatedError, ProcessNotFoundError or ResourceLimitExceeded before
    anything is acquired, TypeError or ValueError for bad addresses, and OSError from the kernel.
    """

    def __init__(self, *, abort: bool = False) -> None:
        self._abort = abort
        #: Whether the thread is in a cleanup of ours, where it is known who holds a socket.
        self._here = threading.local()
        #: Who owns which socket, server or transport.
        self.table: OwnershipTable[Owned] = OwnershipTable(
            "sockets",
            self._release,
            release_many=None if abort else close_many,
            describe=repr,
            identity=attrgetter("native"),
            alias=self._known_native,
            descriptors=attrgetter("descriptors"),
            repeatable=True,
        )

    # -- making --------------------------------------------------------------

    @pid_or_current
    def listen_tcp(
        self, pid: int, address: tuple[str, int], *, backlog: int = 128, reuse_port: bool = False
    ) -> socket.socket:
        """Listen on `(host, port)`; port 0 is any free one.

        A restart may bind at once while old connections are in TIME_WAIT (SO_REUSEADDR).
        """
        endpoint = resolve(address, socket.SOCK_STREAM, passive=True)[0]

        def make() -> socket.socket:
            return _bound(endpoint, reuse_address=True, reuse_port=reuse_port, backlog=backlog)

        return self._acquire(pid, make)

    @pid_or_current
    def connect_tcp(
        self, pid: int, address: tuple[str, int], *, timeout: float | None = None
    ) -> socket.socket:
        """Connect to `(host, port)`, trying each of its addresses in turn.

        `timeout` is in seconds, for each address; the socket returned is blocking. If the owner
        is terminated meanwhile, a blocked connect is woken, and ProcessTerminatedError raised.
        """
        error: OSError | None = None
        for family, kind, protocol, sockaddr in resolve(address, socket.SOCK_STREAM, passive=False):
            # Owned before it connects: a termination finds it, and wakes us.
            sock = self._acquire(pid, partial(socket.socket, family, kind, protocol))
            try:
                sock.settimeout(timeout)
                sock.connect(sockaddr)
                sock.settimeout(None)
            except OSError as this_error:
                error = this_error
                self._discard(pid, sock)
            except BaseException:
                self._discard(pid, sock)
                raise
            else:
                return sock
        raise error or OSError(f"{address!r} has no address to connect to")

    @pid_or_current
    def accept(self, pid: int, listener: socket.socket) -> socket.socket:
        """Wait for a connection on `listener` and own it; the listener may be another's.

        When the listener is closed or shut down by a termination, OSError is raised; when it is
        `pid` that is terminated, ProcessTerminatedError.
        """
        if not isinstance(listener, socket.socket):
            raise TypeError(f"expected a listening socket, got {listener!r}")

        def make() -> socket.socket:
            connection, _ = listener.accept()
            return connection

        return self._acquire(pid, make)

    @pid_or_current
    def bind_udp(
        self, pid: int, address: tuple[str, int], *, reuse_port: bool = False
    ) -> socket.socket:
        """Bind a UDP socket to `(host, port)`; port 0 is any free one."""
        endpoint = resolve(address, socket.SOCK_DGRAM, passive=True)[0]

        def make() -> socket.socket:
            # No SO_REUSEADDR: for UDP it would let two live servers share a port (socket(7)).
            return _bound(endpoint, reuse_address=False, reuse_port=reuse_port)

        return self._acquire(pid, make)

    @pid_or_current
    def listen_unix(
        self, pid: int, path: str | os.PathLike[str], *, backlog: int = 128
    ) -> socket.socket:
        """Listen on a unix stream socket; a path that begins with NUL is abstract.

        A stale socket at `path`, at which nobody listens, is replaced. Raises OSError
        (EADDRINUSE) if somebody does, FileExistsError if it is no socket. The path goes
        with the socket, as long as it still is this socket's.
        """
        name = unix_path(path)
        named = None if is_abstract(name) else _named(name, lambda made: made.bound)
        return self._acquire(pid, lambda: unix.listen(name, backlog), named)

    # -- giving back ---------------------------------------------------------

    @pid_or_current
    def close(self, pid: int, sock: Any, *, abort: bool | None = None) -> None:
        """Close what this owner has: a socket, or whatever was adopted.

        With `abort` a TCP peer gets a reset, and what is unsent is lost; the default is the
        manager's. Idempotent. Raises NotOwnedError if it is another's, BusyResourceError if it is
        used by somebody who cannot be detached, ReleaseError if something is lost.
        """
        if not hasattr(type(sock), "close") and not hasattr(type(sock), "aclose"):
            raise TypeError(f"expected a socket, got {sock!r}")

        def release(owned: Owned) -> Outcome:
            if abort is None or not isinstance(owned, PlainSocket):
                return self._release(owned)
            return owned.release(abort=abort, may_lose=abort)

        try:
            self.table.give_back(pid, sock, release)
        except NotOwnedError as error:
            if error.owner is not None or number_of(sock) != -1:
                raise

    # -- for the kind -----------------------------------------------------

    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        """Own a socket, server, transport, stream or writer made elsewhere.

        What was made of a socket that the same process owns goes with that, and under its id.
        Returns None for anything else. Raises ValueError if it is closed, or is of an event loop
        that it does not tell; AlreadyOwnedError.
        """
        owned = adoption.wrap(resource)
        if owned is None:
            return None
        if isinstance(owned, PlainSocket) or (below := self._below(owned, pid)) is None:
            paths = adoption.paths_of(owned)
            # One row is one path; nothing that is known has more.
            named = _named(paths[0][0], lambda _: paths[0]) if len(paths) == 1 else None
            return self.table.add(pid, owned, named=named)
        self.table.check_admitted(pid)
        below.put_above(owned)
        return self.table.find(pid, below.native)

    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[None]]:
        """Have whoever serves, or has something to send, close what is theirs."""
        owned = self.table.resources(pid)
        # Nobody uses what nobody else holds; and of the rest few are used.
        held = [each for each in owned if type(each) is PlainSocket and each.is_held(OURS)]
        waiting = blocked_in() if held else None
        used = in_use(held, waiting) if held else set()
        used |= waiting.inside if waiting is not None else set()
        closing = [
            each.ask_to_close()
            for each in reversed(owned)
            if type(each) is not PlainSocket or each.number in used or each.is_below
        ]
        return [future for future in closing if future is not None]

    def reclaim(self, record: ResourceRecord, dry_run: bool) -> Outcome:
        """Remove a unix socket's path whose owner has died, unless somebody is bound to it."""
        return reclaim_path(
            record,
            dry_run,
            in_use=lambda pin, status: users_of_socket(pin, status, record.identity),
        )

    def cleanup(self, pid: int) -> CleanupStats:
        """Close all that `pid` owns, newest first."""
        self._here.is_cleanup = True
        try:
            return self.table.cleanup(pid)
        finally:
            self._here.is_cleanup = False

    # -- inside --------------------------------------------------------------

    def _acquire(
        self,
        pid: int,
        make: Callable[[], socket.socket],
        named: Named[PlainSocket] | None = None,
    ) -> socket.socket:
        try:
            making = partial(built, make, PlainSocket, _undo)
            return self.table.acquire(pid, making, named=named).native
        except OSError:
            # A termination wakes whoever is blocked in accept with an OSError; say why.
            self.table.check_admitted(pid)
            raise

    def _below(self, made: Owned, pid: int) -> PlainSocket | None:
        """Find the socket of `pid` that something was made of."""
        for descriptor in made.descriptors:
            owner, below = self._plain_with(descriptor.number)
            if below is not None and owner == pid:
                return below
        return None

    def _plain_with(self, number: int) -> tuple[int, PlainSocket | None]:
        """Find the owned socket that has this number, and its owner."""
        pid, owned = self.table.with_descriptor(number) or (0, None)
        if not isinstance(owned, PlainSocket) or not owned.descriptor.is_ours:
            return pid, None
        return pid, owned

    def _known_native(self, thing: object) -> object:
        """Return what the table knows a writer by, or what was made of an owned socket."""
        native = transport_of(thing)
        for part in adoption.parts_of(native):
            _, below = self._plain_with(number_of(part))
            if below is not None and below.has_above(native):
                return below.native
        return native

    def _discard(self, pid: int, sock: socket.socket) -> None:
        """Give back a socket that could not be connected, unless a termination just did."""
        self.table.check_admitted(pid)
        with contextlib.suppress(OSError):
            self.close(pid, sock)

    def _release(self, owned: Owned) -> Outcome:
        if type(owned) is not PlainSocket:
            return owned.release()
        is_cleanup = getattr(self._here, "is_cleanup", False)
        is_unheld = is_cleanup and not owned.is_held(OURS_IN_CLEANUP)
        return owned.release(abort=self._abort, is_unheld=is_unheld)


def _undo(sock: socket.socket) -> None:
    """Close what was just made, and remove the path that it was bound to."""
    if sock.family == socket.AF_UNIX:
        unix.undo(sock)
    else:
        sock.close()


def _named(path: str, bound: Callable[[Any], BoundPath | None]) -> Named[Any]:
    """Say, for the journal, how the path of a unix socket is found."""
    return Named(
        f"unix socket {path}", name_asked_for(path), lambda made: unix.identity(bound(made))
    )


def _bound(
    endpoint: Endpoint, *, reuse_address: bool, reuse_port: bool, backlog: int | None = None
) -> socket.socket:
    family, kind, protocol, sockaddr = endpoint
    sock = socket.socket(family, kind, protocol)
    try:
        if reuse_address:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(sockaddr)
        if backlog is not None:
            sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock
