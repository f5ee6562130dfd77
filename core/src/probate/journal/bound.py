"""Which live sockets are bound to a path: asked of the kernel by sock_diag(7), and of nobody else.

/proc/net/unix has the paths that were bound, which may be another's by now, or relative. Here the
kernel says the inode. Nobody is connected to: a server does not notice that it was looked for.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: include/uapi/linux/netlink.h and sock_diag.h.
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301
_ERROR: Final = 2
_DONE: Final = 3

#: Length, type, flags, sequence and port: `struct nlmsghdr`.
_HEADER: Final = struct.Struct("=IHHII")

#: Family, protocol, states, inode, what to show, cookie: `struct unix_diag_req`, unix_diag.h.
_REQUEST: Final = struct.Struct("=BBHIIIII")
_ALL_STATES: Final = 0xFFFFFFFF
_SHOW_NAME: Final = 0x01
_SHOW_VFS: Final = 0x02

#: Family, type, state, inode, cookie: `struct unix_diag_msg`; then attributes.
_ANSWER: Final = struct.Struct("=BBBBIII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_NAME: Final = 0
_VFS: Final = 1
_VFS_VALUE: Final = struct.Struct("=II")
_ESTABLISHED: Final = 1

#: A datagram of answers is no larger.
_MOST_BYTES: Final = 1 << 16


@final
class BoundSocket(NamedTuple):
    """A live socket, and what it is bound to."""

    inode: int
    path: bytes
    #: Inode, cut off, and device of the path.
    file: tuple[int, int] | None


def bound_sockets() -> Iterator[BoundSocket]:
    """Yield the unix sockets of this network namespace that are bound to paths. Raises OSError.

    Not connections that were accepted: they have the path of their listener, and need it no more.
    """
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW_NAME | _SHOW_VFS, 0, 0)
    length = _HEADER.size + len(request)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asked:
        asked.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0) + request)
        while True:
            for kind, body in _split(asked.recv(_MOST_BYTES), _HEADER):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", body)[0] or errno.EPROTO
                    raise OSError(number, f"sock_diag: {os.strerror(number)}")
                _, type_, state, _, inode, _, _ = _ANSWER.unpack_from(body)
                if state == _ESTABLISHED and type_ != socket.SOCK_DGRAM:
                    continue
                found = dict(_split(body[_ANSWER.size :], _ATTRIBUTE))
                path = found.get(_NAME, b"").partition(b"\0")[0]
                file = _VFS_VALUE.unpack(found[_VFS]) if _VFS in found else None
                if path or file:
                    yield BoundSocket(inode, path, file)


def _split(data: bytes, header: struct.Struct) -> Iterator[tuple[int, bytes]]:
    """Split messages or attributes, each with its length first and its type second (netlink(7))."""
    at = 0
    while at + header.size <= len(data):
        length, kind = header.unpack_from(data, at)[:2]
        yield kind, data[at + header.size : at + length]
        # They begin at multiples of four.
        at += (length + 3) & ~3


def device_of_sockets() -> int:
    """Return the device that all sockets are on, and have their inodes of (proc(5), socket:[N])."""
    with socket.socket(socket.AF_UNIX) as any_one:
        return os.fstat(any_one.fileno()).st_dev
