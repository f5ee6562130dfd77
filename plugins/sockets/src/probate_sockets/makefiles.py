"""Files that `makefile` has put above a socket: they keep it open, and buffer what is written.

As long as one is open, `socket.close` does nothing (cpython#76219).
"""

from __future__ import annotations

import io
import socket
from typing import Any, Final

from probate.errors import BusyResourceError
from probate.system import heap


def is_used_above(sock: socket.socket) -> bool:
    """Whether the socket counts users that must be closed before it is."""
    return getattr(sock, "_io_refs", 0) > 0


def close_above(sock: socket.socket) -> list[str]:
    """Close the files above a socket, the outermost first, so that what they hold is written.

    The socket does not block meanwhile. Returns what was lost, as it could not be sent at once;
    raises BusyResourceError if what keeps the socket open is no such file.
    """
    raws = _files_of(sock)
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
    if is_used_above(sock):
        raise BusyResourceError("an event loop has it, too: close that first, or adopt it instead")
    return [f"what was written to a file of it: {error}" for error in errors[:1]]


#: What may stand above a raw file.
_BUFFERS_AND_TEXTS: Final = (
    io.BufferedReader,
    io.BufferedWriter,
    io.BufferedRWPair,
    io.TextIOWrapper,
)


def _files_of(sock: socket.socket) -> list[socket.SocketIO]:
    """The raw files of a socket, looked for among all objects."""
    found = heap.instances(lambda cls: cls is socket.SocketIO)
    return [each for each in found if _is_of(each, sock)]


def _is_of(raw: Any, sock: socket.socket) -> bool:
    return raw._sock is sock  # noqa: SLF001  it is told nowhere else


def _above(raws: list[Any]) -> list[Any]:
    """The buffers and texts above raw files, outermost first."""
    everything = heap.instances(lambda cls: issubclass(cls, _BUFFERS_AND_TEXTS))
    buffers = [
        each
        for each in everything
        if issubclass(type(each), (io.BufferedReader, io.BufferedWriter))
        and _is_in(each, "raw", raws)
    ]
    pairs = [pair for raw in raws for pair in _pairs_above(raw, everything)]
    texts = [
        each
        for each in everything
        if issubclass(type(each), io.TextIOWrapper) and _is_in(each, "buffer", buffers + pairs)
    ]
    # A reader that is closed takes the raw file along, and what a writer has not written.
    buffers.sort(key=lambda each: issubclass(type(each), io.BufferedReader))
    return texts + pairs + buffers


def _pairs_above(raw: Any, everything: list[Any]) -> list[Any]:
    """The pairs of buffers above a raw file, which tell nobody what they are made of.

    They pass a question on to it, whose answer is changed for a moment.
    """
    pairs = [
        each
        for each in everything
        if type(each) is io.BufferedRWPair and not each.closed and not each.isatty()
    ]
    if not pairs or raw.closed:
        return []
    raw.isatty = lambda: True
    try:
        return [each for each in pairs if each.isatty()]
    finally:
        del raw.isatty


def _is_in(thing: Any, name: str, those: list[Any]) -> bool:
    try:
        below = getattr(thing, name, None)
    except ValueError:
        # Detached.
        return False
    return any(below is each for each in those)
