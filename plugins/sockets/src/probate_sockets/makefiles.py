"""Files that `makefile` has put above a socket: they keep it open, and buffer what is written.

As long as one is open, `socket.close` does nothing (cpython#76219).
"""

from __future__ import annotations

import gc
import io
import socket
from typing import Any

from probate.errors import BusyResourceError, ReleaseError


def is_used_above(sock: socket.socket) -> bool:
    """Whether the socket counts users that must be closed before it is."""
    return getattr(sock, "_io_refs", 0) > 0


def close_above(sock: socket.socket) -> None:
    """Close the files above a socket, the outermost first, so that what they hold is written.

    The socket does not block meanwhile. Raises ReleaseError if something written could not be
    sent, and is lost; BusyResourceError if what keeps the socket open is no such file.
    """
    raws = files_of(sock)
    if not raws:
        raise BusyResourceError(
            "an event loop that is not known has it: close that first, or adopt it instead"
        )
    errors: list[BaseException] = []
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        for each in [*_above(raws), *raws]:
            try:
                each.close()
            except (OSError, ValueError) as error:
                errors.append(error)
    finally:
        if sock.fileno() != -1:
            sock.settimeout(timeout)
    if errors:
        raise ReleaseError(f"closed, but what was written to a file of it is lost: {errors[0]}")
    if is_used_above(sock):
        raise BusyResourceError("an event loop has it, too: close that first, or adopt it instead")


def files_of(sock: socket.socket) -> list[socket.SocketIO]:
    """The raw files of a socket, looked for among all objects."""
    return [
        each for each in gc.get_objects() if type(each) is socket.SocketIO and _is_of(each, sock)
    ]


def _is_of(raw: Any, sock: socket.socket) -> bool:
    return raw._sock is sock  # noqa: SLF001  it is told nowhere else


def _above(raws: list[Any]) -> list[Any]:
    """The buffers and texts above raw files, outermost first."""
    everything = gc.get_objects()
    buffers = [
        each
        for each in everything
        if issubclass(type(each), (io.BufferedReader, io.BufferedWriter))
        and _is_in(each, "raw", raws)
    ]
    # A pair does not tell what it is made of.
    users = gc.get_referrers(*buffers) if buffers else []
    pairs = [each for each in users if issubclass(type(each), io.BufferedRWPair)]
    texts = [
        each
        for each in everything
        if issubclass(type(each), io.TextIOWrapper) and _is_in(each, "buffer", buffers + pairs)
    ]
    return texts + pairs + buffers


def _is_in(thing: Any, name: str, those: list[Any]) -> bool:
    try:
        below = getattr(thing, name, None)
    except ValueError:
        # Detached.
        return False
    return any(below is each for each in those)
