"""Callbacks around what people really hold: clients and servers of well-known libraries.

Each is witnessed at the other end, or by the descriptors of this process.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from probate import ProcessManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_an_aiohttp_session_and_its_server(manager: ProcessManager) -> None:
    """The session first, being newer; then the runner, whose port nobody serves any more."""
    from aiohttp import ClientSession, web

    async def work() -> tuple[dict[str, int], bool, int]:
        process = manager.create_process("p")
        application = web.Application()

        async def hello(_: web.Request) -> web.Response:
            return web.Response(text="hello")

        application.router.add_get("/", hello)
        runner = web.AppRunner(application)
        await runner.setup()
        process.adopt(runner, release=runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        session = ClientSession()
        process.adopt(session, release=ClientSession.close)
        async with session.get(f"http://{host}:{port}/") as response:
            assert await response.text() == "hello"
        result = await process.terminate_async()
        assert result.is_success, result.errors
        return dict(result.stats.by_type), session.closed, port

    by_type, closed, port = asyncio.run(work())

    assert (by_type, closed) == ({"callbacks": 2}, True)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_httpx_clients(manager: ProcessManager, listener: socket.socket) -> None:
    """The plain and the asynchronous one; the server sees the end of both connections."""
    import httpx

    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def serve() -> socket.socket:
        peer, _ = listener.accept()
        peer.recv(4096)
        peer.sendall(answer)
        return peer

    async def work() -> list[socket.socket]:
        process = manager.create_process("p")
        client, async_client = httpx.Client(), httpx.AsyncClient()
        process.adopt(client, release=client.close)
        process.adopt(async_client, release=async_client.aclose)
        first, response = await asyncio.gather(
            asyncio.to_thread(serve), asyncio.to_thread(client.get, url)
        )
        second, other = await asyncio.gather(asyncio.to_thread(serve), async_client.get(url))
        assert response.text == other.text == "ok"
        result = await process.terminate_async()
        assert (result.is_success, result.stats.resources_freed) == (True, 2)
        return [first, second]

    for peer in asyncio.run(work()):
        with peer:
            assert peer.recv(1) == b""


def test_a_grpc_channel(manager: ProcessManager) -> None:
    """Closed on its own loop; afterwards it calls nobody."""
    import grpc

    async def work() -> None:
        process = manager.create_process("p")
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        process.callback(server.stop, None)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        process.adopt(channel, release=channel.close)
        await asyncio.wait_for(channel.channel_ready(), 10)
        result = await process.terminate_async()
        assert (result.errors, result.stats.resources_freed) == ((), 2)
        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN

    asyncio.run(work())


@pytest.fixture
def redis_path(tmp_path: Path) -> Iterator[Path]:
    """A real server, at a unix socket of its own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server: apt-get install redis-server")
    path = tmp_path / "redis.sock"
    command = [
        program,
        "--port",
        "0",
        "--unixsocket",
        str(path),
        "--dir",
        str(tmp_path),
        "--save",
        "",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            while b"eady to accept" not in server.stdout.readline():
                assert server.poll() is None
            yield path
        finally:
            server.terminate()


def test_a_redis_client(manager: ProcessManager, redis_path: Path) -> None:
    """Its pool's connections go with it, as the server counts them."""
    from redis import asyncio as aioredis

    async def clients(path: Path) -> int:
        async with aioredis.Redis(unix_socket_path=str(path)) as witness:
            return len(await witness.client_list())

    async def work() -> tuple[int, int]:
        process = manager.create_process("p")
        client = aioredis.Redis(unix_socket_path=str(redis_path))
        process.adopt(client, release=client.aclose)
        assert await client.set("key", "value")
        before = await clients(redis_path)
        assert (await process.terminate_async()).is_success
        return before, await clients(redis_path)

    assert asyncio.run(work()) == (2, 1)


def test_a_sqlalchemy_engine(manager: ProcessManager, tmp_path: Path) -> None:
    """Disposed of, it holds its database file no more: the fixture sees the descriptors."""
    sqlalchemy: Any = pytest.importorskip("sqlalchemy")
    process = manager.create_process("p")
    engine = sqlalchemy.create_engine(
        f"sqlite:///{tmp_path / 'data'}", poolclass=sqlalchemy.pool.QueuePool
    )
    process.adopt(engine, release=engine.dispose)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("select 1")).scalar() == 1
    assert engine.pool.checkedin() == 1

    assert process.terminate().is_success
    assert engine.pool.checkedin() == 0
