"""Stopping and closing plain sockets."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

from probate import Outcome
from probate_sockets.unix import UnixListener

#: `struct linger { on, 0 seconds }`: close sends a reset and discards what is unsent (socket(7)).
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def is_listener(sock: socket.socket) -> bool:
    """Whether the kernel has it listening (SO_ACCEPTCONN, socket(7)); False if closed."""
    with contextlib.suppress(OSError):
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return False


def stop_accepting(listener: socket.socket) -> None:
    """Refuse new connections, and wake threads blocked in accept (with EINVAL)."""
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)


def close(sock: socket.socket, *, abort: bool) -> Outcome:
    """Shut a socket down, which wakes threads blocked in it, and close it.

    With `abort` the peer gets a reset, otherwise what is still unsent is sent. Raises OSError
    if closing fails; the descriptor is gone all the same (close(2)).
    """
    if sock.fileno() == -1:
        return Outcome.ALREADY_GONE
    if isinstance(sock, UnixListener):
        sock.unlink()
    if abort:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    # A blocked thread holds the socket open, so it is woken first. Where nothing is connected the
    # kernel wakes it and then complains. For a reset the sending side is left to close.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD if abort else socket.SHUT_RDWR)
    sock.close()
    return Outcome.RELEASED


def describe(sock: socket.socket) -> str:
    """Family, type and addresses, as far as the kernel still knows them."""
    parts = [sock.family.name.removeprefix("AF_"), sock.type.name.removeprefix("SOCK_").lower()]
    if is_listener(sock):
        parts.append("listener")
    with contextlib.suppress(OSError):
        parts.append(_address(sock.getsockname()))
    with contextlib.suppress(OSError):
        parts.append(f"to {_address(sock.getpeername())}")
    return " ".join(part for part in parts if part)


def _address(address: object) -> str:
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return address.decode(errors="replace") if isinstance(address, bytes) else str(address)
