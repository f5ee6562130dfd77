"""Objects of trio and anyio, adopted by what they can do and closed where they run."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from probate import Outcome, ProcessManager

if TYPE_CHECKING:
    from collections.abc import Callable

HOST: Final = "127.0.0.1"

#: Those of trio are tried where it is installed.
trio: Any = None
with contextlib.suppress(ImportError):
    trio = importlib.import_module("trio")
    importlib.import_module("trio.testing")
needs_trio = pytest.mark.skipif(trio is None, reason="trio is not installed")

Ends = tuple[Any, socket.socket]


async def trio_stream() -> Ends:
    with socket.create_server((HOST, 0)) as server:
        stream = await trio.open_tcp_stream(*server.getsockname())
        return stream, server.accept()[0]


async def trio_socket() -> Ends:
    ours, peer = socket.socketpair()
    return trio.socket.from_stdlib_socket(ours), peer


async def anyio_stream() -> Ends:
    with socket.create_server((HOST, 0)) as server:
        stream = await anyio.connect_tcp(*server.getsockname())
        return stream, server.accept()[0]


async def anyio_udp() -> Ends:
    peer = socket.socket(type=socket.SOCK_DGRAM)
    peer.bind((HOST, 0))
    return await anyio.create_connected_udp_socket(*peer.getsockname()), peer


async def anyio_listener() -> Ends:
    listener = await anyio.create_tcp_listener(local_host=HOST)
    return listener, socket.socket()


@pytest.mark.parametrize("grace", [0, 5])
@pytest.mark.parametrize(
    ("backend", "make"),
    [
        pytest.param("trio", trio_stream, marks=needs_trio),
        pytest.param("trio", trio_socket, marks=needs_trio),
        pytest.param("trio", anyio_stream, marks=needs_trio),
        pytest.param("trio", anyio_udp, marks=needs_trio),
        pytest.param("trio", anyio_listener, marks=needs_trio),
        ("asyncio", anyio_stream),
        ("asyncio", anyio_udp),
        ("asyncio", anyio_listener),
    ],
)
def test_what_runs_on_another_thread_is_closed_there(
    manager: ProcessManager, backend: str, make: Callable[[], Any], grace: float
) -> None:
    """cpython#88968, of other loops: its number is free, and the loop has let go of it."""
    process = manager.create_process("elsewhere")
    ready, over = threading.Event(), threading.Event()
    made: list[Ends] = []
    errors: list[BaseException] = []

    async def scenario() -> None:
        made.append(await make())
        process.adopt(made[0][0])
        ready.set()
        await anyio.to_thread.run_sync(over.wait, 30)
        # The loop polls on, and does so rightly.
        await anyio.sleep(0.01)

    def run() -> None:
        try:
            anyio.run(scenario, backend=backend)
        except BaseException as error:
            errors.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(10)
    result = process.terminate(grace=grace)
    over.set()
    thread.join(10)

    assert not errors
    assert result.is_success
    assert result.stats.by_type == {"sockets": 1}
    peer = made[0][1]
    if peer.type == socket.SOCK_STREAM and make is not anyio_listener:
        peer.settimeout(5)
        assert peer.recv(1) == b""
    peer.close()


@needs_trio
def test_who_waits_in_trio_is_told(manager: ProcessManager) -> None:
    """cpython#88968: a plain socket that trio waits for: ClosedResourceError, not for ever."""

    async def scenario() -> None:
        process = manager.create_process("waits")
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        process.adopt(ours)
        told = trio.Event()

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(ours)
            told.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            result = process.terminate()
            with trio.fail_after(5):
                await told.wait()

        assert result.is_success
        assert ours.fileno() == -1
        peer.close()

    trio.run(scenario)


@pytest.mark.parametrize("direction", ["read", "write"])
def test_a_pipes_transport_is_closed_by_its_loop(manager: ProcessManager, direction: str) -> None:
    """cpython#88968: pipes are polled as sockets are; what is written arrives."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        process = manager.create_process("pipe")
        reading, writing = os.pipe()
        if direction == "read":
            file: Any = os.fdopen(reading, "rb", 0)
            transport: Any
            transport, _ = await loop.connect_read_pipe(asyncio.Protocol, file)
        else:
            file = os.fdopen(writing, "wb", 0)
            transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, file)
            transport.write(b"x" * 1000)
        process.adopt(transport)

        result = await process.terminate_async(grace=5)

        assert result.is_success
        assert result.stats.by_type == {"sockets": 1}
        assert file.closed
        if direction == "write":
            assert len(os.read(reading, 2000)) == 1000
        os.close(reading if direction == "write" else writing)

    asyncio.run(scenario())


def test_a_transport_is_given_back_by_its_writer(manager: ProcessManager) -> None:
    """What was adopted is what one gives back."""

    async def scenario() -> None:
        process = manager.create_process("writer")
        ours, peer = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        process.adopt(writer)

        assert process.give_back(writer) is Outcome.RELEASED
        await writer.wait_closed()
        peer.close()

    asyncio.run(scenario())
