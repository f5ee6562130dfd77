"""What front and keeper tell each other, by a SOCK_SEQPACKET socket: JSON, and descriptors."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import socket
from contextlib import suppress
from typing import Any, Final

from probate.system.peer import receive_fds

#: The most bytes of a message, and the most descriptors.
_MOST_BYTES: Final = 1 << 14
_MOST_DESCRIPTORS: Final = 4


def send(channel: socket.socket, message: dict[str, Any], *descriptors: int) -> None:
    """Send a message, which has no more than some thousand bytes. Raises OSError."""
    socket.send_fds(channel, [json.dumps(message).encode()], list(descriptors))


def send_with_self(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send a message, and a pidfd of this process. Raises OSError."""
    own = os.pidfd_open(os.getpid())
    try:
        send(channel, message, own)
    finally:
        os.close(own)


def is_readable(fd: int) -> bool:
    """Tell whether there is something to read; of a pidfd, whether its process has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(happened & select.POLLIN for _, happened in poll.poll(0))


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive a message; one without anything at the end. Raises OSError, also for nonsense."""
    text, descriptors = receive_fds(channel, _MOST_BYTES, _MOST_DESCRIPTORS)
    if not text:
        return {}, descriptors
    try:
        message = json.loads(text)
    except ValueError as error:
        raise OSError(f"what was received is no message: {error}") from error
    return message, descriptors


def send_text(channel: socket.socket, name: str, text: str) -> None:
    """Send a text of any length, in a file that is in memory. Raises OSError.

    Where no file may be as large (RLIMIT_FSIZE, getrlimit(2)), it is sent in a pipe, if it fits.
    """
    raw = text.encode()
    try:
        fd = _file_of(name, raw)
    except OSError:
        fd = _pipe_of(raw)
    try:
        send(channel, {name: True}, fd)
    finally:
        os.close(fd)


def _file_of(name: str, raw: bytes) -> int:
    fd = os.memfd_create(name)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(raw)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _pipe_of(raw: bytes) -> int:
    """Return the end of a pipe that this is to be read from; nobody waits for whoever reads."""
    end, into = os.pipe()
    try:
        with suppress(PermissionError):
            fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, max(len(raw), 1))
        os.set_blocking(into, False)
        if os.write(into, raw) < len(raw):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    except BaseException:
        os.close(end)
        raise
    finally:
        os.close(into)
    return end


def read_text(fd: int) -> bytes:
    """Read a text that was sent, and close its file."""
    with open(fd, "rb") as file:
        return file.read()
