"""Unix listeners, and the paths that they would leave behind.

The kernel keeps the inode of a bound path for as long as the socket is open, so its number
cannot come round to a successor's path before we close: device and inode are compared first.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Final

from probate.system import unlink_if_same
from probate_sockets.address import is_abstract

#: Seconds that a probe waits for a server that may be overloaded; it counts as alive then.
_PROBE_TIMEOUT: Final = 1.0


class UnixListener(socket.socket):
    """A listening unix socket that knows which path is its own."""

    #: Its path, and what was there when it was bound; None for an abstract name.
    bound: tuple[str, os.stat_result] | None = None

    def unlink(self) -> None:
        """Remove the path if it is still this socket's. Must come before `close`."""
        if self.bound is None:
            return
        bound, self.bound = self.bound, None
        unlink_if_same(*bound)


def listen(path: str, backlog: int) -> UnixListener:
    """Bind and listen. A stale socket in the way is replaced, anything else is refused.

    Raises FileExistsError for a path that is no socket, OSError (EADDRINUSE) for a live server.
    """
    if not is_abstract(path):
        _clear_stale(path)
    listener = UnixListener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        if not is_abstract(path):
            listener.bound = (path, os.lstat(path))
        listener.listen(backlog)
    except BaseException:
        listener.unlink()
        listener.close()
        raise
    return listener


def _clear_stale(path: str) -> None:
    try:
        # Pinned, so that no successor gets its inode number while the server is looked for.
        pin = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
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
