"""Unix listeners, and the paths that they would leave behind.

The kernel keeps the inode of a bound path for as long as the socket is open, so its number
cannot come round to a successor's path before we close: device and inode are compared first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from probate.journal import path_identity
from probate.system import unlink_if_same, using
from probate_sockets.address import is_abstract
from probate_sockets.nettables import unix_sockets

if TYPE_CHECKING:
    from probate import ResourceRecord
    from probate.journal import Notice

#: Seconds that a probe waits for a server that may be overloaded; it counts as alive then.
_PROBE_TIMEOUT: Final = 1.0

_PIN: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

#: A path, and what was there when a socket was bound to it.
BoundPath = tuple[str, os.stat_result]


def listen(path: str, backlog: int) -> socket.socket:
    """Bind and listen. A stale socket in the way is replaced, anything else is refused.

    Raises FileExistsError for a path that is no socket, OSError (EADDRINUSE) for a live server.
    """
    if not is_abstract(path):
        _clear_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        listener.listen(backlog)
    except BaseException:
        undo(listener)
        raise
    return listener


def undo(sock: socket.socket) -> None:
    """Close a socket that was just made, and remove its path, if it has one."""
    if (bound := _looked_up(sock)) is not None:
        unlink_bound(bound)
    sock.close()


def noticed(notice: Notice) -> ResourceRecord | None:
    """Say of what a supervised program binds to a path that it is a unix socket."""
    if notice.call != "bind":
        return None
    return notice.record("sockets", f"unix socket {notice.name}")


def bound_path(sock: Any) -> BoundPath | None:
    """Return the path that a socket would leave behind, None if it would leave none.

    A connection that was accepted has its listener's path, which is not its own. Where several
    sockets listen under one name, all but the last have lost the path: it is nobody's then.
    """
    if sock.family != socket.AF_UNIX:
        return None
    with contextlib.suppress(OSError):
        is_listener = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if is_listener or sock.type == socket.SOCK_DGRAM:
            bound = _looked_up(sock)
            return None if bound is None or _has_rivals(sock) else bound
    return None


def unlink_bound(bound: BoundPath) -> None:
    """Remove a path if it is still what it was. The socket must be open, which pins the inode."""
    unlink_if_same(*bound)


def identity(bound: BoundPath | None) -> dict[str, Any]:
    """Return what tells a path from a later one of its name, for the journal.

    The socket must be open. Raises OSError (ESTALE) if the path is no longer its own.
    """
    if bound is not None:
        path, status = bound
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return using(partial(os.open, path, _PIN), partial(_identity_at, path, status))
    raise OSError(errno.ESTALE, "its path was taken away as it was made")


def _identity_at(path: str, status: os.stat_result, pin: int) -> dict[str, Any]:
    if not os.path.samestat(os.fstat(pin), status):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return path_identity(path, pin)


def _looked_up(sock: Any) -> BoundPath | None:
    name = sock.getsockname()
    path = os.fsdecode(name) if isinstance(name, bytes) else name
    if not path or is_abstract(path):
        return None
    with contextlib.suppress(OSError):
        path = os.path.abspath(path)  # noqa: PTH100  as in `unix_path`
        status = os.lstat(path)
        if stat.S_ISSOCK(status.st_mode):
            return path, status
    return None


def _has_rivals(sock: Any) -> bool:
    """Whether another socket has been bound to the same name, and so has its path (proc(5))."""
    name = os.fsencode(sock.getsockname())
    own = str(os.fstat(sock.fileno()).st_ino).encode()
    with contextlib.suppress(OSError):
        for other in unix_sockets("self"):
            # Connections have the name too, but are connected, or about to be.
            if other.state == 1 and other.name == name and other.inode != own:
                return True
    return False


def _clear_stale(path: str) -> None:
    try:
        # Pinned, so that no successor gets its inode number while the server is looked for.
        pin = os.open(path, _PIN)
    except FileNotFoundError:
        return
    try:
        before = os.fstat(pin)
        if not stat.S_ISSOCK(before.st_mode):
            raise FileExistsError(errno.EEXIST, "in the way, and not a socket", path)
        if _is_served(path):
            raise OSError(errno.EADDRINUSE, "a live server listens there", path)
        unlink_if_same(path, before)
    finally:
        os.close(pin)


def _is_served(path: str) -> bool:
    """Whether anybody listens at `path`, by asking; in doubt, yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # A datagram server (EPROTOTYPE), a full backlog, no permission: somebody's.
            return True
    return True
