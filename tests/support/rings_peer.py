"""The other OS process in tests of zero-copy rings: `rings_peer.py ROLE SOCKET-FD [COUNT]`.

It gets the ring's descriptors by SCM_RIGHTS, attaches, says so by a byte, and plays its role.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from probate_rings import RingClosedError, ZeroCopyIpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate_rings import ZeroCopyRing

#: Sequence number and checksum in front of each payload.
HEAD = 12


def write_message(block: memoryview, number: int) -> int:
    """Fill a block with message `number`, of a length of its own; return that length."""
    payload = (number * 2654435761 % 2**64).to_bytes(8, "little") * (number % 7)
    block[:8] = number.to_bytes(8, "little")
    block[8:HEAD] = zlib.crc32(payload, number % 2**32).to_bytes(4, "little")
    block[HEAD : HEAD + len(payload)] = payload
    return HEAD + len(payload)


def check_message(message: memoryview, number: int) -> None:
    """Raise AssertionError unless this is message `number`, unharmed."""
    assert int.from_bytes(message[:8], "little") == number
    checksum = zlib.crc32(message[HEAD:], number % 2**32)
    assert int.from_bytes(message[8:HEAD], "little") == checksum
    assert len(message) == HEAD + 8 * (number % 7)


def receive_all(ring: ZeroCopyRing) -> int:
    """Receive and check until the sender's end closes; return how many came."""
    count = 0
    try:
        while True:
            with ring.receiving() as message:
                check_message(message, count)
            count += 1
    except RingClosedError:
        return count


def send_all(ring: ZeroCopyRing, count: int) -> None:
    """Send messages 0 to `count` - 1."""
    for number in range(count):
        with ring.sending() as block:
            ring.submit(write_message(block, number))


@contextmanager
def peer(ring: ZeroCopyRing, role: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start another OS process in that role, and wait until it has attached."""
    here, there = socket.socketpair()
    with here, there:
        command = [sys.executable, __file__, role, str(there.fileno()), *arguments]
        with subprocess.Popen(
            command,
            pass_fds=[there.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                there.close()
                socket.send_fds(here, [b"r"], ring.filenos())
                here.settimeout(30)
                assert here.recv(1) == b"a"
                yield process
            finally:
                process.kill()


def _main(role: str, number: str, count: str = "0") -> None:
    with socket.socket(fileno=int(number)) as connection:
        _, fds, _, _ = socket.recv_fds(connection, 1, 3)
        ring = ZeroCopyIpc().attach(1, fds)
        for fd in fds:
            os.close(fd)
        connection.sendall(b"a")
        if role == "receive":
            sys.stdout.write(f"{receive_all(ring)}\n")
        elif role == "send":
            send_all(ring, int(count))
        elif role == "hold":
            # Until it is killed: with as many messages in its hands.
            held = [ring.receive(timeout=None) for _ in range(int(count))]
            sys.stdout.write(f"{len(held)}\n")
            sys.stdout.flush()
            sys.stdin.read()
        ring.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
