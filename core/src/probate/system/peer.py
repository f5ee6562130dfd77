"""Who is at the other end of a unix socket, as the kernel knows it (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import socket
import struct
from typing import Final

#: `struct ucred`: pid, uid, gid.
_UCRED: Final = struct.Struct("iII")


def peer_of(connection: socket.socket) -> tuple[int, int, int]:
    """Return the pid, uid and gid at the other end, as the kernel knows them."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    os_pid, uid, gid = _UCRED.unpack(raw)
    return os_pid, uid, gid
