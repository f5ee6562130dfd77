"""What stands above a socket, or behind a server: found and closed first, gently, or told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvloop

from probate import Outcome, ProcessManager

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

LOOPBACK: Final = ("127.0.0.1", 0)

#: More than the kernel takes at once.
MANY_BYTES: Final = 20_000_000

RUNNERS: Final[dict[str, Callable[[Coroutine[Any, Any, None]], None]]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
}


@pytest.fixture(params=list(RUNNERS))
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    return RUNNERS[request.param]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for it, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run(
        [*command, "-keyout", path, "-out", f"{path}.crt"],
        check=True,
        timeout=60,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + (path.parent / f"{path.name}.crt").read_bytes())
    return path


def contexts(certificate: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Server's and client's."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return server, client


@pytest.mark.usefixtures("nothing_remains")
@pytest.mark.parametrize("mode", ["wb", "rwb", "w", "rw", "r"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_file_above_a_socket_is_written_and_closed_first(
    manager: ProcessManager, mode: str, count: int
) -> None:
    """cpython#76219: it was released with its descriptor open, and in bulk it was closed."""
    process = manager.create_process("file")
    pairs = [socket.socketpair() for _ in range(count)]
    made: Any = socket.socket.makefile
    files = [made(ours, mode) for ours, _ in pairs]
    for ours, _ in pairs:
        process.adopt(ours)
    if "w" in mode:
        for file in files:
            file.write(b"last" if "b" in mode else "last")

    result = process.terminate()

    assert result.is_success
    assert result.stats.by_type == {"sockets": count}
    for ours, peer in pairs:
        assert ours.fileno() == -1
        peer.settimeout(5)
        assert peer.recv(5) == (b"last" if "w" in mode else b"")
        peer.close()


@pytest.mark.usefixtures("nothing_remains")
def test_what_was_written_to_a_file_and_cannot_be_sent_is_an_error(manager: ProcessManager) -> None:
    """cpython#76219: nobody waits for a peer that does not read; but the loss is told."""
    process = manager.create_process("full")
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 65536)
    ours.setblocking(True)
    file = ours.makefile("wb")
    file.write(b"lost")
    process.adopt(ours)

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "lost is what was written" in result.errors[0].message
    assert ours.fileno() == -1
    peer.close()


@pytest.mark.usefixtures("nothing_remains")
def test_a_blocking_tls_socket_says_close_notify(
    manager: ProcessManager, certificate: Path
) -> None:
    """RFC 8446, 6.1: without it the peer cannot tell an end from a cut."""
    process = manager.create_process("tls")
    for_server, for_client = contexts(certificate)
    got: list[object] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with for_server.wrap_socket(
            connection, server_side=True, suppress_ragged_eofs=False
        ) as tls:
            try:
                got.append(tls.recv(1))
            except OSError as error:
                got.append(error)

    with socket.create_server(LOOPBACK) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        client = for_client.wrap_socket(socket.create_connection(listener.getsockname()))
        process.adopt(client)
        result = process.terminate()
        thread.join(10)

    assert result.is_success
    assert got == [b""]


@pytest.mark.parametrize("has_tls", [False, True])
@pytest.mark.parametrize("is_read", [False, True])
def test_what_a_writer_has_to_send_arrives_within_the_grace_or_is_an_error(
    manager: ProcessManager,
    run: Callable[[Coroutine[Any, Any, None]], None],
    certificate: Path,
    has_tls: bool,
    is_read: bool,
) -> None:
    """aiohttp#1369: 3.9 of 20 MB arrived, and nobody knew; `close` in quiesce, `abort` by force."""
    for_server, for_client = contexts(certificate)
    received = []
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        if has_tls:
            connection = for_server.wrap_socket(
                connection, server_side=True, suppress_ragged_eofs=False
            )
        total = 0
        if not is_read:
            over.wait(30)
        with connection:
            try:
                while data := connection.recv(1 << 20):
                    total += len(data)
            except OSError:
                total = -1
        received.append(total)

    async def scenario() -> None:
        process = manager.create_process("writes")
        context = for_client if has_tls else None
        _, writer = await asyncio.open_connection(*listener.getsockname(), ssl=context)
        process.adopt(writer)
        writer.write(b"x" * MANY_BYTES)

        result = await process.terminate_async(grace=20 if is_read else 0.1)

        over.set()
        if is_read:
            assert result.is_success
        else:
            assert [error.outcome for error in result.errors] == [Outcome.FAILED]
            assert "bytes written to it were not sent, and are lost" in result.errors[0].message
        await asyncio.to_thread(thread.join, 10)

    with socket.create_server(LOOPBACK) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        run(scenario())

    if is_read:
        assert received == [MANY_BYTES]


def test_connections_end_with_their_server(
    manager: ProcessManager, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """cpython#113538, websockets PR 1745: they went on being served."""

    async def scenario() -> None:
        process = manager.create_process("server")
        ended = asyncio.Event()

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(10):
                writer.write(data)
            writer.close()
            ended.set()

        server = await asyncio.start_server(echo, *LOOPBACK)
        process.adopt(server)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        assert await reader.read(5) == b"hello"

        result = await process.terminate_async(grace=5)

        assert result.is_success
        assert await asyncio.wait_for(reader.read(), 5) == b""
        await asyncio.wait_for(ended.wait(), 5)
        writer.close()
        await writer.wait_closed()

    run(scenario())


# Its writer and the transport itself complain when they are collected: they were never told.
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
@pytest.mark.filterwarnings("ignore:loop is closed:ResourceWarning")
def test_a_transport_whose_loop_is_closed_is_closed_by_its_number(manager: ProcessManager) -> None:
    """As in cpython PR 92842: nobody is left to ask; what it had to send is told to be lost."""
    process = manager.create_process("late")
    ours, peer = socket.socketpair()
    loop = asyncio.new_event_loop()

    async def connect() -> None:
        _, writer = await asyncio.open_connection(sock=ours)
        process.adopt(writer)

    loop.run_until_complete(connect())
    loop.close()
    result = process.terminate()

    assert result.is_success
    assert ours.fileno() == -1
    peer.settimeout(5)
    assert peer.recv(1) == b""
    peer.close()
    gc.collect()


@pytest.mark.usefixtures("nothing_remains")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_the_path_of_an_adopted_unix_socket_goes_with_it(
    manager: ProcessManager, tmp_path: Path, kind: socket.SocketKind
) -> None:
    """cpython#111246, anyio#32: it was noted at adoption; a successor's is another."""
    path = tmp_path / "socket"
    process, late = manager.create_process("unix"), manager.create_process("late")
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(os.fspath(path))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    process.adopt(sock)

    assert process.terminate().is_success
    assert not path.exists()

    old, new = (socket.socket(socket.AF_UNIX, kind) for _ in range(2))
    old.bind(os.fspath(path))
    path.unlink()
    new.bind(os.fspath(path))
    if kind == socket.SOCK_STREAM:
        old.listen()
        new.listen()
    late.adopt(old)

    assert late.terminate().is_success
    assert path.exists()
    new.close()


def test_an_accepted_connection_does_not_take_its_listeners_path(
    manager: ProcessManager, tmp_path: Path
) -> None:
    """anyio#32: it has the same name, but is not bound to it."""
    path = os.fspath(tmp_path / "socket")
    process = manager.create_process("connection")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.connect(path)
        process.adopt(listener.accept()[0])

        assert process.terminate().is_success
        assert (tmp_path / "socket").exists()


def test_the_path_of_an_adopted_unix_server_goes_with_it(
    manager: ProcessManager, run: Callable[[Coroutine[Any, Any, None]], None], tmp_path: Path
) -> None:
    """cpython#111246: asyncio left it, before 3.13."""
    path = tmp_path / "server"

    async def scenario() -> None:
        process = manager.create_process("unix")
        process.adopt(await asyncio.start_unix_server(lambda _r, w: w.close(), path))

        assert (await process.terminate_async(grace=5)).is_success
        assert not path.exists()

    run(scenario())
