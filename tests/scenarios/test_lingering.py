"""SO_LINGER holds up nobody: neither an event loop nor a termination, of whatever kind it is."""

# ruff: noqa: SIM115  whoever adopts a file here closes it

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from probate import Process, ProcessManager

LOOPBACK: Final = ("127.0.0.1", 0)

#: Seconds that a close would take, and far fewer that it may.
LINGER: Final = 30
AT_ONCE: Final = 5

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture(scope="module", autouse=True)
def warm_uvloop() -> None:
    """Have uvloop make the pipe that it keeps for as long as the interpreter lives (libuv)."""
    uvloop.run(asyncio.sleep(0))


@pytest.fixture
def connect() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Connects a socket that lingers, with as much unsent as it takes, to a peer that reads not."""
    peers: list[socket.socket] = []

    def made() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(LOOPBACK) as server:
            sock = socket.create_connection(server.getsockname())
            peer, _ = server.accept()
        peers.append(peer)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
        sock.setblocking(False)
        return sock, peer

    yield made
    for peer in peers:
        peer.close()


def fill(sock: socket.socket) -> int:
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += sock.send(b"x" * 65536)
    return sent


def received(peer: socket.socket) -> int:
    """All that a peer gets, up to the end."""
    total = 0
    peer.settimeout(10)
    while data := peer.recv(1 << 20):
        total += len(data)
    return total


def as_a_socket(process: Process, sock: socket.socket) -> None:
    process.adopt(sock)


def as_a_number(process: Process, sock: socket.socket) -> None:
    process.adopt(sock.detach())


def as_a_file(process: Process, sock: socket.socket) -> None:
    process.adopt(open(sock.detach(), "wb", buffering=0))


def as_a_connection(process: Process, sock: socket.socket) -> None:
    process.adopt(Connection(sock.detach()))


ADOPTED: Final = [as_a_socket, as_a_number, as_a_file, as_a_connection]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("adopt", ADOPTED)
def test_what_lingers_is_closed_at_once_and_sent_all_the_same(
    manager: ProcessManager,
    connect: Callable[[], tuple[socket.socket, socket.socket]],
    adopt: Callable[[Process, socket.socket], None],
    is_async: bool,
    count: int,
) -> None:
    """cilium/proxy#1127: close(2) blocked the loop, and outlasted grace and deadline."""

    async def scenario() -> None:
        process = manager.create_process("lingers")
        pairs = [connect() for _ in range(count)]
        sent = [fill(sock) for sock, _ in pairs]
        for sock, _ in pairs:
            adopt(process, sock)
        started = time.monotonic()

        result = await process.terminate_async() if is_async else process.terminate()

        assert time.monotonic() - started < AT_ONCE
        assert result.is_success
        assert result.stats.resources_freed == count
        assert [received(peer) for _, peer in pairs] == sent

    asyncio.run(scenario())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("grace", [0, 0.2])
def test_a_transport_that_lingers_does_not_hold_up_its_loop(
    manager: ProcessManager,
    connect: Callable[[], tuple[socket.socket, socket.socket]],
    run: Callable[[Coroutine[Any, Any, None]], None],
    grace: float,
) -> None:
    """The loop closes its socket, on its own thread, and other tasks go on meanwhile."""

    async def scenario() -> None:
        process = manager.create_process("lingers")
        sock, peer = connect()
        fill(sock)
        _, writer = await asyncio.open_connection(sock=sock)
        process.adopt(writer)
        started = time.monotonic()

        result = await process.terminate_async(grace=grace)
        # Its turns, in which it is closed.
        for _ in range(3):
            await asyncio.sleep(0)

        assert time.monotonic() - started < AT_ONCE
        assert result.is_success
        assert received(peer) > 0

    run(scenario())


def test_what_a_child_shares_lingers_as_it_was_asked_to(
    manager: ProcessManager, connect: Callable[[], tuple[socket.socket, socket.socket]]
) -> None:
    """redis-py#863: its options are the other's as well, and our close is not the last."""
    process = manager.create_process("shares")
    sock, _ = connect()
    fill(sock)
    twin = socket.socket(fileno=os.dup(sock.fileno()))
    process.adopt(sock)
    started = time.monotonic()

    assert process.terminate().is_success
    assert time.monotonic() - started < AT_ONCE
    option = twin.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
    assert struct.unpack("ii", option) == (1, LINGER)

    twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    twin.close()
