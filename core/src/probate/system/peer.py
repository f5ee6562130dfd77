"""Who is at the other end of a unix socket, and what descriptors come from there (unix(7))."""

from __future__ import annotations

import socket
import struct
from typing import Final

#: `struct ucred`: pid, uid, gid.
_UCRED: Final = struct.Struct("iII")

#: A descriptor's number.
_NUMBER: Final = struct.Struct("i")


def peer_of(connection: socket.socket) -> tuple[int, int, int]:
    """Return the pid, uid and gid at the other end, as the kernel knows them."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    os_pid, uid, gid = _UCRED.unpack(raw)
    return os_pid, uid, gid


def receive_fds(channel: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Receive a message, and at most so many descriptors with it, closed on exec from the first.

    As `socket.recv_fds`, which does not heed its flags: another thread may start a program just
    then. Raises OSError.
    """
    room = socket.CMSG_LEN(most * _NUMBER.size)
    text, notes, _, _ = channel.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    return text, [
        number
        for level, sort, data in notes
        if (level, sort) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (number,) in _NUMBER.iter_unpack(data[: len(data) - len(data) % _NUMBER.size])
    ]
