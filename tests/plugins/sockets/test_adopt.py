"""Sockets, asyncio servers and transports that were made elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from probate import AlreadyOwnedError, Outcome, UnadoptableError
from probate.testing.witness import KernelView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import ProcessManager

LOOPBACK = ("127.0.0.1", 0)


@pytest.fixture
def foreign_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve a connection until its peer is gone."""
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


def is_listening(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.usefixtures("nothing_remains")
def test_a_plain_socket_is_adopted_and_closed(manager: ProcessManager) -> None:
    """A socket that a web framework opened is owned from here on."""
    process = manager.create_process("adopter")
    listener = socket.create_server(LOOPBACK)
    address = listener.getsockname()
    process.adopt(listener)

    result = process.terminate()

    assert result.stats.by_type == {"sockets": 1}
    assert not is_listening(address)


@pytest.mark.usefixtures("nothing_remains")
def test_a_thing_has_one_owner(manager: ProcessManager) -> None:
    """Adopted twice, by the same process or another, it would be released twice: refused."""
    first, second = manager.create_process("first"), manager.create_process("second")
    listener = socket.create_server(LOOPBACK)
    first.adopt(listener)

    for process in (first, second):
        with pytest.raises(AlreadyOwnedError, match=f"owned by process {first.pid}"):
            process.adopt(listener)

    assert first.terminate().stats.resources_freed == 1


def test_a_closed_socket_is_not_adopted(manager: ProcessManager) -> None:
    """Nothing to own; the error tells why."""
    closed = socket.socket()
    closed.close()

    with pytest.raises(UnadoptableError) as caught:
        manager.create_process("late").adopt(closed)

    assert "closed socket" in repr(caught.value.__cause__)


def test_a_closed_writer_is_not_adopted(manager: ProcessManager) -> None:
    """It said to adopt it on its own loop, of which a closed transport knows nothing any more."""
    process = manager.create_process("late")

    async def scenario() -> asyncio.StreamWriter:
        ours, peer = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        writer.close()
        await writer.wait_closed()
        peer.close()
        return writer

    writer = asyncio.run(scenario())

    with pytest.raises(UnadoptableError, match="closed, so it cannot be adopted"):
        process.adopt(writer)


def test_an_asyncio_server_is_closed_from_another_thread(
    manager: ProcessManager, foreign_loop: asyncio.AbstractEventLoop
) -> None:
    """Its loop closes it; the port refuses connections when terminate returns."""

    async def start() -> asyncio.Server:
        server = await asyncio.start_server(hold, *LOOPBACK)
        process.adopt(server)
        return server

    process = manager.create_process("server")
    server = asyncio.run_coroutine_threadsafe(start(), foreign_loop).result(5)
    address = server.sockets[0].getsockname()

    result = process.terminate(grace=5)

    assert result.is_success
    assert result.stats.by_type == {"sockets": 1}
    assert not is_listening(address)


@pytest.mark.parametrize("grace", [0, 5])
def test_a_stream_writer_is_closed_from_another_thread(
    manager: ProcessManager, foreign_loop: asyncio.AbstractEventLoop, grace: float
) -> None:
    """Graceful or at once, its descriptor is gone when terminate returns."""
    with socket.create_server(LOOPBACK) as listener:

        async def connect() -> asyncio.StreamWriter:
            _, writer = await asyncio.open_connection(*listener.getsockname())
            process.adopt(writer)
            return writer

        process = manager.create_process("client")
        before = KernelView.take()
        writer = asyncio.run_coroutine_threadsafe(connect(), foreign_loop).result(5)
        connection, _ = listener.accept()

        result = process.terminate(grace=grace)
        with connection:
            received = connection.recv(1)

        assert result.is_success
        assert result.stats.by_type == {"sockets": 1}
        assert received == b""
        assert writer.is_closing()
        assert before.changes() == []


def test_async_termination_closes_what_is_on_its_own_loop(manager: ProcessManager) -> None:
    """Server and transports, adopted on the loop that awaits the termination."""

    async def scenario() -> None:
        process = manager.create_process("all")
        server = await asyncio.start_server(hold, *LOOPBACK)
        address = server.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(*address)
        process.adopt(server)
        process.adopt(writer)

        result = await process.terminate_async(grace=5)

        assert result.is_success
        assert result.stats.by_type == {"sockets": 2}
        assert not is_listening(address)
        # The server's side of the connection belongs to nobody; its handler sees the end of it.
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(scenario())


def test_on_the_loops_own_thread_the_sync_form_closes_without_waiting(
    manager: ProcessManager,
) -> None:
    """It cannot wait for its own loop; transports are closed by the loop's next turn."""

    async def scenario() -> None:
        process = manager.create_process("sync")
        with socket.create_server(LOOPBACK) as listener:
            _, writer = await asyncio.open_connection(*listener.getsockname())
            process.adopt(writer)

            result = process.terminate(grace=5)
            await asyncio.sleep(0)

            assert result.is_success
            assert writer.get_extra_info("socket").fileno() == -1

    asyncio.run(scenario())


def test_a_transport_of_a_stopped_loop_is_busy_and_its_peer_is_told(
    manager: ProcessManager,
) -> None:
    """Nobody can close it but its loop; the connection is shut down, and the account says why."""
    process = manager.create_process("stopped")
    loop = asyncio.new_event_loop()
    with socket.create_server(LOOPBACK) as listener:

        async def connect() -> None:
            # Nobody but its owner keeps the writer.
            _, writer = await asyncio.open_connection(*listener.getsockname())
            process.adopt(writer)

        loop.run_until_complete(connect())
        connection, _ = listener.accept()
        result = process.terminate()
        with connection:
            received = connection.recv(1)

    assert received == b""
    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "no longer runs" in result.errors[0].message
    # Its loop's next turn closes it, and the manager's end finds that so.
    loop.run_until_complete(asyncio.sleep(0))
    manager.close()
    loop.close()
    assert not manager.orchestrator.has_resources(process.pid)


def test_what_is_no_socket_is_left_to_others(manager: ProcessManager) -> None:
    """A transport of a child process has no socket: this kind does not take it."""

    async def scenario() -> None:
        child = await asyncio.create_subprocess_exec("true")
        transport = child._transport  # type: ignore[attr-defined]  # the only one at hand
        with pytest.raises(UnadoptableError):
            manager.create_process("owner").adopt(transport)
        await child.wait()

    asyncio.run(scenario())
