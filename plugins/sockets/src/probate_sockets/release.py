"""Stopping and closing plain sockets."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING, Final, cast

from probate import Outcome
from probate_sockets import blocked
from probate_sockets.loopbound import LoopBound
from probate_sockets.unix import UnixListener

if TYPE_CHECKING:
    from collections.abc import Callable

    Native = socket.socket | LoopBound

#: `struct linger { on, 0 seconds }`: close sends a reset and discards what is unsent (socket(7)).
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

#: What a set of sockets of which none can be a listener has of types.
_CANNOT_LISTEN: Final = {socket.SOCK_DGRAM}

#: The built-in methods, past what `socket.socket` puts before them: no Python code runs in between.
_descriptor_of: Final[Callable[[socket.socket], int]] = socket.SocketType.fileno
_detach: Final[Callable[[socket.socket], int]] = socket.SocketType.detach
_type_of: Final[Callable[[Native], int]] = socket.SocketType.type.__get__


def is_listener(sock: socket.socket) -> bool:
    """Whether the kernel has it listening (SO_ACCEPTCONN, socket(7)); False if closed."""
    with contextlib.suppress(OSError):
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return False


def those_to_stop(natives: list[Native]) -> list[Native]:
    """The listeners among sockets, and what an event loop has; newest first."""
    if set(map(type, natives)) == {socket.socket} and set(map(_type_of, natives)) == _CANNOT_LISTEN:
        return []
    return [each for each in reversed(natives) if isinstance(each, LoopBound) or is_listener(each)]


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
    _shut_down(sock, abort=abort)
    sock.close()
    return Outcome.RELEASED


def close_many(sockets: list[Native], *, abort: bool) -> None:
    """Shut down and close the plain sockets at the end of a list, newest first; take them off it.

    The kernel closes descriptors that follow each other in one call (close_range(2)), and for
    datagram sockets it is told to wake only those threads that are blocked in one. Does nothing
    where one of them is closed, or no longer open, of which `close` has more to say.
    """
    plain = cast("list[socket.socket]", sockets[_after_last_special(sockets) :])
    descriptors = list(map(_descriptor_of, plain))
    if len(plain) < 2 or not _are_all_open(descriptors):
        return
    # A datagram socket has nobody to tell, but for threads that are blocked in it.
    are_datagrams = set(map(_type_of, plain)) == _CANNOT_LISTEN
    threads = blocked.count_other_threads() if are_datagrams else None
    is_shut_down = threads is None or threads * blocked.SOCKETS_PER_THREAD >= len(plain)
    if is_shut_down:
        for sock in reversed(plain):
            _shut_down(sock, abort=abort)
    detached: list[int] = []
    try:
        # One call, which nothing interrupts: from here on a descriptor is in this list alone, and
        # no thread finds it that was not there before.
        detached.extend(map(_detach, plain))
        del sockets[-len(plain) :]
        if threads and not is_shut_down:
            blocked.wake(detached)
    finally:
        _close_descriptors(detached)


def _after_last_special(sockets: list[Native]) -> int:
    """Where the plain sockets begin that are at the end of a list."""
    if set(map(type, sockets)) == {socket.socket}:
        return 0
    for index in range(len(sockets), 0, -1):
        if type(sockets[index - 1]) is not socket.socket:
            return index
    return 0


def _are_all_open(descriptors: list[int]) -> bool:
    if -1 in descriptors:
        return False
    poll = select.poll()
    deque(map(poll.register, descriptors, repeat(0)), maxlen=0)
    return not any(events & select.POLLNVAL for _, events in poll.poll(0))


def _shut_down(sock: socket.socket, *, abort: bool) -> None:
    if abort:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    # A blocked thread holds the socket open, so it is woken first. Where nothing is connected the
    # kernel wakes it and then complains. For a reset the sending side is left to close.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD if abort else socket.SHUT_RDWR)


def _close_descriptors(descriptors: list[int]) -> None:
    """Close them, those that follow each other in one call."""
    descriptors.sort()
    first, count = 0, len(descriptors)
    while first < count:
        end = count
        if descriptors[-1] - descriptors[first] != count - 1 - first:
            # There are others in between.
            end = first + 1
            while end < count and descriptors[end] == descriptors[end - 1] + 1:
                end += 1
        os.closerange(descriptors[first], descriptors[end - 1] + 1)
        first = end


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
