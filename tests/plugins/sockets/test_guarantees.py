"""Who else uses a socket, server or transport: what docs/guarantees.md says, and no other test."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import socketserver
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvloop
from certificates import contexts
from children import exit_code_of_fork

from probate import Outcome, ProcessManager
from probate.testing.witness import KernelView

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from probate_sockets import SocketManager

LOOPBACK: Final = ("127.0.0.1", 0)

#: More than the kernel takes at once.
MANY_BYTES: Final = 20_000_000

pytestmark = pytest.mark.usefixtures("nothing_remains")

#: A child that answers one who connects to the listener that it has as number 0.
#: What a loop listens on does not block, for whoever has it.
ANSWERS: Final = (
    "import select, socket\n"
    "listener = socket.socket(fileno=0)\n"
    "print('here', flush=True)\n"
    "while select.select([listener], [], []): listener.accept()[0].send(b'child')"
)


@contextlib.contextmanager
def answering(number: int) -> Iterator[None]:
    """A child that has inherited a listener, and answers who connects."""
    command = [sys.executable, "-c", ANSWERS]
    with subprocess.Popen(command, stdin=number, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield
        child.kill()


@pytest.fixture(scope="module", autouse=True)
def uvloop_has_run() -> None:
    """What uvloop opens once, for good, is no leak."""
    uvloop.run(asyncio.sleep(0))


# -- datagrams ---------------------------------------------------------------


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_datagram_endpoint_on_an_owned_socket_goes_with_it(
    manager: ProcessManager,
    sockets: SocketManager,
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """cpython#88968: its transport is told, and the loop polls the number no more."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        process = manager.create_process("udp")
        sock = sockets.bind_udp(process.pid, LOOPBACK)
        number = sock.fileno()
        told = loop.create_future()

        class Protocol(asyncio.DatagramProtocol):
            def connection_lost(self, exc: Exception | None) -> None:
                told.set_result(exc)

        await loop.create_datagram_endpoint(Protocol, sock=sock)

        result = await process.terminate_async(grace=5)

        assert result.stats.by_type == {"sockets": 1}
        assert result.is_success
        assert await asyncio.wait_for(told, 5) is None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)

    run(scenario())


def test_a_duplicate_of_a_datagram_socket_lives_on(
    manager: ProcessManager, sockets: SocketManager
) -> None:
    """redis-py#863: a number is closed, not what others have it for."""
    process, other = manager.create_process("old"), manager.create_process("new")
    sock = sockets.bind_udp(process.pid, LOOPBACK)
    twin = sock.dup()
    other.adopt(twin)

    assert process.terminate().stats.by_type == {"sockets": 1}

    twin.settimeout(5)
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"datagram", twin.getsockname())
    assert twin.recv(100) == b"datagram"


# -- paths -------------------------------------------------------------------


def test_the_path_of_a_socket_that_was_closed_directly_stays(
    manager: ProcessManager, sockets: SocketManager, tmp_path: Path
) -> None:
    """mamori#58: nothing pins its inode any more, so that it could be a successor's by now.

    `close` of the manager takes it away, and the next listener of ours is not kept from it.
    """
    path = tmp_path / "socket"
    process = manager.create_process("closes")
    sockets.listen_unix(process.pid, path).close()

    result = process.terminate()

    assert result.is_success
    assert not result.has_freed_resources
    assert path.exists()
    sockets.listen_unix(manager.create_process("next").pid, path)


def test_the_path_goes_although_a_child_has_inherited_the_listener(
    manager: ProcessManager, sockets: SocketManager, tmp_path: Path
) -> None:
    """amphp/byte-stream#105: the child goes on accepting whoever came before; nobody else comes."""
    path = tmp_path / "socket"
    process = manager.create_process("parent")
    listener = sockets.listen_unix(process.pid, path)
    with answering(listener.fileno()), socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))

        result = process.terminate()

        client.settimeout(10)
        assert client.recv(5) == b"child"
    assert result.stats.by_type == {"sockets": 1}
    assert not path.exists()


# -- servers and transports --------------------------------------------------


def test_a_server_whose_loop_is_closed_is_closed_by_its_number(
    manager: ProcessManager, tmp_path: Path
) -> None:
    """As in cpython PR 92842: nobody is left to ask, and its path is in nobody's way."""
    process = manager.create_process("late")
    path = tmp_path / "socket"
    loop = asyncio.new_event_loop()

    async def serve() -> int:
        server = await asyncio.start_unix_server(lambda _r, w: w.close(), path)
        process.adopt(server)
        return server.sockets[0].fileno()

    number = loop.run_until_complete(serve())
    loop.close()

    assert process.terminate().stats.by_type == {"sockets": 1}
    assert not path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


# Its writer and the transport itself complain when they are collected: they were never told.
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
@pytest.mark.filterwarnings("ignore:loop is closed:ResourceWarning")
def test_what_a_transport_of_a_closed_loop_had_to_send_is_an_error(manager: ProcessManager) -> None:
    """As in cpython PR 92842; aiohttp#1369: its number is closed, and what is lost is told."""
    process = manager.create_process("late")
    ours, peer = socket.socketpair()
    loop = asyncio.new_event_loop()

    async def connect() -> int:
        _, writer = await asyncio.open_connection(sock=ours)
        writer.write(bytes(MANY_BYTES))
        process.adopt(writer)
        return int(writer.transport.get_write_buffer_size())

    left = loop.run_until_complete(connect())
    loop.close()

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert f"{left} bytes written to it were not sent" in result.errors[0].message
    assert ours.fileno() == -1
    peer.close()
    gc.collect()


def test_what_was_closed_directly_is_already_gone(manager: ProcessManager) -> None:
    """Servers of both sorts, a transport: neither counted nor complained of."""
    process = manager.create_process("tidy")
    threaded = socketserver.TCPServer(LOOPBACK, socketserver.BaseRequestHandler)
    process.adopt(threaded)
    threaded.server_close()

    async def scenario() -> None:
        server = await asyncio.start_server(lambda _r, w: w.close(), *LOOPBACK)
        process.adopt(server)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        process.adopt(writer)
        for each in (server, writer):
            each.close()
            await each.wait_closed()

        result = await process.terminate_async()

        assert result.is_success
        assert not result.has_freed_resources

    asyncio.run(scenario())


@pytest.mark.parametrize("adopted", ["server", "transport", "socketserver"])
def test_the_number_of_a_server_that_was_closed_elsewhere_is_a_strangers(adopted: str) -> None:
    """python-manhole#58: whoever has the number now is left alone by the end of its owner."""

    async def make() -> tuple[Any, int]:
        if adopted == "server":
            server = await asyncio.start_server(lambda _r, _w: None, *LOOPBACK)
            return server, server.sockets[0].fileno()
        if adopted == "transport":
            _, writer = await asyncio.open_connection(sock=socket.socketpair()[0])
            return writer, writer.get_extra_info("socket").fileno()
        threaded = socketserver.TCPServer(LOOPBACK, socketserver.BaseRequestHandler)
        return threaded, threaded.fileno()

    async def scenario() -> None:
        process = ProcessManager.builder().build().create_process("poisoned")
        thing, number = await make()
        process.adopt(thing)
        os.close(number)
        stranger = os.open("/dev/null", os.O_RDONLY)
        assert stranger == number

        result = await process.terminate_async(grace=1)
        await asyncio.sleep(0)

        assert result.is_success
        assert not result.has_freed_resources
        assert os.readlink(f"/proc/self/fd/{number}") == "/dev/null"
        # No further: the objects themselves close their numbers when they are collected.
        os._exit(0)

    # In a child, where nothing of it can harm the tests that follow.
    assert exit_code_of_fork(lambda: asyncio.run(scenario())) == 0


def test_a_socketserver_that_a_child_has_inherited_goes_on_there(manager: ProcessManager) -> None:
    """amphp/byte-stream#105: `serve_forever` ends here; the child accepts."""
    process = manager.create_process("parent")
    server = socketserver.TCPServer(LOOPBACK, socketserver.BaseRequestHandler)
    address = server.socket.getsockname()
    process.adopt(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with answering(server.fileno()):
        result = process.terminate(grace=5)
        thread.join(10)

        with socket.create_connection(address) as client:
            assert client.recv(5) == b"child"
    assert result.is_success
    assert not thread.is_alive()


def test_a_server_that_a_child_has_inherited_goes_on_there(manager: ProcessManager) -> None:
    """amphp/byte-stream#105: its loop serves nobody any more; the child accepts."""
    process = manager.create_process("parent")

    async def scenario() -> None:
        server = await asyncio.start_server(lambda _r, w: w.close(), *LOOPBACK)
        process.adopt(server)
        [listener] = server.sockets
        address = listener.getsockname()
        with answering(listener.fileno()):
            result = await process.terminate_async(grace=5)

            with socket.create_connection(address) as client:
                assert client.recv(5) == b"child"
        assert result.stats.by_type == {"sockets": 1}

    asyncio.run(scenario())


def test_what_shares_a_connection_with_a_transport_goes_on(manager: ProcessManager) -> None:
    """redis-py#863: the transport closes its number, and shuts nothing down."""
    process = manager.create_process("old")
    ours, peer = socket.socketpair()
    twin = ours.dup()

    async def scenario() -> None:
        _, writer = await asyncio.open_connection(sock=ours)
        process.adopt(writer)

        assert (await process.terminate_async(grace=5)).stats.by_type == {"sockets": 1}

    asyncio.run(scenario())

    twin.sendall(b"goes on")
    assert peer.recv(100) == b"goes on"
    twin.close()
    peer.close()


def test_tls_says_nothing_where_somebody_else_has_the_connection(manager: ProcessManager) -> None:
    """twisted#2004: a close_notify would end what goes on there."""
    for_server, for_client = contexts()
    process = manager.create_process("shares")
    got: list[object] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with for_server.wrap_socket(connection, server_side=True) as tls:
            tls.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                got.append(tls.recv(1))

    with socket.create_server(LOOPBACK) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        client = for_client.wrap_socket(socket.create_connection(listener.getsockname()))
        with socket.fromfd(client.fileno(), socket.AF_INET, socket.SOCK_STREAM):
            process.adopt(client)
            result = process.terminate()
            thread.join(10)

    assert result.stats.by_type == {"sockets": 1}
    assert got == []


def test_a_server_of_a_stopped_loop_is_closed(manager: ProcessManager) -> None:
    """It needs no turn of the loop for that, as a transport does."""
    process = manager.create_process("stopped")
    loop = asyncio.new_event_loop()

    async def serve() -> int:
        server = await asyncio.start_server(lambda _r, w: w.close(), *LOOPBACK)
        process.adopt(server)
        return server.sockets[0].fileno()

    number = loop.run_until_complete(serve())
    try:
        result = process.terminate()

        assert result.stats.by_type == {"sockets": 1}
        assert result.is_success
        assert number not in KernelView.take().fds
    finally:
        loop.close()
