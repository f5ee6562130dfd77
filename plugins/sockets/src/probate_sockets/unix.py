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
from typing import Final

from probate_sockets.address import is_abstract

#: Seconds that a probe waits for a server that may be overloaded; it counts as alive then.
_PROBE_TIMEOUT: Final = 1.0


class UnixListener(socket.socket):
    """A listening unix socket that knows which path is its own."""

    #: Path, device and inode; None for an abstract name.
    bound: tuple[str, int, int] | None = None

    def unlink(self) -> None:
        """Remove the path if it is still this socket's. Must come before `close`."""
        if self.bound is None:
            return
        path, *identity = self.bound
        self.bound = None
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            if [status.st_dev, status.st_ino] == identity:
                os.unlink(path)  # noqa: PTH108  as lstat, on the same string


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
            status = os.lstat(path)
            listener.bound = (path, status.st_dev, status.st_ino)
        listener.listen(backlog)
    except BaseException:
        listener.unlink()
        listener.close()
        raise
    return listener


def _clear_stale(path: str) -> None:
    try:
        before = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(before.st_mode):
        raise FileExistsError(errno.EEXIST, "in the way, and not a socket", path)
    if _is_served(path):
        raise OSError(errno.EADDRINUSE, "a live server listens there", path)
    with contextlib.suppress(FileNotFoundError):
        now = os.lstat(path)
        if (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino):
            os.unlink(path)  # noqa: PTH108  as lstat, on the same string


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
