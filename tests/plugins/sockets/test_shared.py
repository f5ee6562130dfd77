"""Identity before every act, and no act on what others share; the kernel is the witness."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from threads import in_thread, wait_until_blocked

from probate import Outcome, ProcessManager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate_sockets import SocketManager

LOOPBACK: Final = ("127.0.0.1", 0)

#: A child that accepts what comes to the listener that it has as number 0.
ACCEPTS: Final = (
    "import socket\n"
    "listener = socket.socket(fileno=0)\n"
    "while True: listener.accept()[0].send(b'child')"
)

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture
def child(sockets: SocketManager, manager: ProcessManager) -> Iterator[socket.socket]:
    """A listener of a process that is about to end, inherited by a child that serves on it."""
    process = manager.create_process("parent")
    listener = sockets.listen_tcp(process.pid, LOOPBACK)
    with subprocess.Popen([sys.executable, "-c", ACCEPTS], stdin=listener.fileno()) as popen:
        with socket.create_connection(listener.getsockname()) as client:
            assert client.recv(5) == b"child"
        yield listener
        popen.kill()


@pytest.mark.parametrize("count", [1, 2])
def test_a_number_that_was_closed_elsewhere_is_a_strangers(
    manager: ProcessManager, count: int
) -> None:
    """python-manhole#58, cpython#75163: whoever has the number now is left alone."""
    process = manager.create_process("poisoned")
    socks = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(count)]
    for sock in socks:
        process.adopt(sock)
    number = socks[0].fileno()
    os.close(number)
    stranger = os.open("/dev/null", os.O_RDONLY)
    assert stranger == number

    result = process.terminate()
    # Nor does the object close it when it is collected.
    del sock, socks

    assert result.is_success
    assert result.stats.resources_freed == count - 1
    os.fstat(stranger)
    os.close(stranger)


def test_a_number_that_was_detached_is_told_to_be_somebody_elses(manager: ProcessManager) -> None:
    """cpython#75163: what left its object is open still, and the account knows it."""
    process = manager.create_process("detached")
    sock = socket.socket()
    process.adopt(sock)
    number = sock.detach()

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.REFUSED]
    assert f"number {number} was detached" in result.errors[0].message
    os.close(number)


def test_a_dup_of_another_owner_lives_on(manager: ProcessManager, sockets: SocketManager) -> None:
    """redis-py#863, twisted#2004: shutdown(2) acts on what both of them share."""
    old, new = manager.create_process("old"), manager.create_process("new")
    listener = sockets.listen_tcp(old.pid, LOOPBACK)
    address = listener.getsockname()
    new.adopt(listener.dup())
    ours, peer = socket.socketpair()
    old.adopt(ours)
    twin = ours.dup()
    new.adopt(twin)

    result = old.terminate(grace=0.1)

    assert result.is_success
    socket.create_connection(address).close()
    assert twin.send(b"x") == 1
    peer.close()


def test_a_listener_that_a_child_has_inherited_lives_on(
    manager: ProcessManager, child: socket.socket
) -> None:
    """amphp/byte-stream#105: the child goes on accepting."""
    address = child.getsockname()

    result = manager.terminate_process(manager.list_processes()[0].pid)

    assert result.is_success
    with socket.create_connection(address) as client:
        assert client.recv(5) == b"child"


def test_a_thread_that_is_blocked_in_what_others_share_makes_it_busy(
    manager: ProcessManager, child: socket.socket
) -> None:
    """To wake it would end the child's service: the account names both, and nothing is closed."""
    process = manager.list_processes()[0]
    address = child.getsockname()
    thread, accepted = in_thread(lambda: child.accept()[0].close())
    wait_until_blocked(thread)

    result = manager.terminate_process(process.pid)

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "has it open, too" in result.errors[0].message
    while thread.is_alive():
        socket.create_connection(address).close()
        thread.join(0.05)
    assert accepted == [None]


def test_what_was_sent_to_another_process_lives_on(manager: ProcessManager) -> None:
    """redis-py#863: it need not be a child's; whoever was sent it has it open (unix(7))."""
    process = manager.create_process("sender")
    listener = socket.create_server(LOOPBACK)
    address = listener.getsockname()
    process.adopt(listener)
    ours, theirs = socket.socketpair()
    script = (
        "import socket\n"
        "own = socket.socket(fileno=0)\n"
        "fds = socket.recv_fds(own, 1, 1)[1]\n"
        "own.send(b'.')\n"
        "socket.socket(fileno=fds[0]).accept()[0].send(b'child')"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=theirs.fileno()):
        theirs.close()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener.fileno()]))]
        ours.sendmsg([b"."], rights)
        ours.recv(1)
        result = process.terminate(grace=0.1)

        with socket.create_connection(address) as client:
            assert client.recv(5) == b"child"
    ours.close()

    assert result.is_success


def test_a_socket_that_lingers_holds_up_nobody(manager: ProcessManager) -> None:
    """cilium/proxy#1127: SO_LINGER made close(2) block the loop; what is unsent is sent on."""

    async def scenario() -> None:
        process = manager.create_process("lingers")
        with socket.create_server(LOOPBACK) as server:
            sock = socket.create_connection(server.getsockname())
            peer, _ = server.accept()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
        sock.setblocking(False)
        sent = 0
        while True:
            try:
                sent += sock.send(b"x" * 65536)
            except BlockingIOError:
                break
        process.adopt(sock)
        started = time.monotonic()

        result = await process.terminate_async()

        assert time.monotonic() - started < 5
        assert result.is_success
        with peer:
            assert _received(peer) == sent

    asyncio.run(scenario())


def test_bytes_that_a_reset_throws_away_are_an_error(manager: ProcessManager) -> None:
    """aiohttp#1369: what was asked for when the socket was made may lose what was written."""
    process = manager.create_process("resets")
    with socket.create_server(LOOPBACK) as server:
        sock = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(b"x" * 65536)
    process.adopt(sock)

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "lost is what had not arrived" in result.errors[0].message
    peer.close()


def _received(peer: Any) -> int:
    total = 0
    while data := peer.recv(1 << 20):
        total += len(data)
    return total
