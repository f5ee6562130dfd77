"""A number is not closed while somebody polls it: who does is detached first, and woken."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import select
import selectors
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvloop

from probate import Outcome, ProcessManager

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from probate_sockets import SocketManager

LOOPBACK: Final = ("127.0.0.1", 0)

#: How a program runs on each kind of loop.
RUNNERS: Final[dict[str, Callable[[Coroutine[Any, Any, None]], None]]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
}

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture(params=list(RUNNERS))
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    return RUNNERS[request.param]


@pytest.fixture(scope="module", autouse=True)
def warm_uvloop() -> None:
    """Have uvloop make the pipe that it keeps for as long as the interpreter lives (libuv)."""
    uvloop.run(asyncio.sleep(0))


async def is_usable(number: int) -> bool:
    """Whether the next socket that gets a number receives what is sent to it."""
    first, second = socket.socketpair()
    ours, peer = (first, second) if first.fileno() == number else (second, first)
    assert ours.fileno() == number, "the number is free again"
    reader, writer = await asyncio.open_connection(sock=ours)
    peer.send(b"hello")
    try:
        return await asyncio.wait_for(reader.read(5), 2) == b"hello"
    except TimeoutError:
        return False
    finally:
        peer.close()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def test_a_listener_that_serves_on_a_loop_goes_with_its_server(
    manager: ProcessManager,
    sockets: SocketManager,
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """cpython#88968, uvloop#653: the next socket with that number hung for ever."""

    async def scenario() -> None:
        process = manager.create_process("web")
        listener = sockets.listen_tcp(process.pid, LOOPBACK)
        number = listener.fileno()
        server = await asyncio.start_server(lambda _r, w: w.close(), sock=listener)

        result = await process.terminate_async(grace=5)

        assert result.is_success
        assert result.stats.by_type == {"sockets": 1}
        assert await is_usable(number)
        server.close()

    run(scenario())


@pytest.mark.parametrize("wait", ["sock_recv", "sock_accept"])
def test_whatever_waits_on_a_loop_ends_with_an_error(
    manager: ProcessManager,
    run: Callable[[Coroutine[Any, Any, None]], None],
    wait: str,
) -> None:
    """cpython#88968: a coroutine that waits for a socket is not left to wait for ever."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        process = manager.create_process("waits")
        sock, peer = socket.socketpair()
        if wait == "sock_accept":
            sock.close()
            sock = socket.create_server(LOOPBACK)
        sock.setblocking(False)
        process.adopt(sock)
        number = sock.fileno()
        waits = loop.sock_recv(sock, 1) if wait == "sock_recv" else loop.sock_accept(sock)
        task = asyncio.ensure_future(waits)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        result = await process.terminate_async()
        with contextlib.suppress(OSError):
            await asyncio.wait_for(task, 5)

        assert result.is_success
        assert sock.fileno() == -1
        peer.close()
        assert await is_usable(number)

    run(scenario())


def test_a_reader_of_another_threads_loop_is_removed(
    manager: ProcessManager, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """waitress#418: the loop is told on its own thread, by whoever terminates."""
    process = manager.create_process("elsewhere")
    first, peer = socket.socketpair()
    first.setblocking(False)
    number = first.fileno()
    process.adopt(first)
    ready, over = threading.Event(), threading.Event()
    usable = []

    async def scenario() -> None:
        asyncio.get_running_loop().add_reader(first.fileno(), lambda: None)
        # uvloop tells the kernel at its next turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ready.set()
        await asyncio.to_thread(over.wait, 10)
        usable.append(await is_usable(number))

    thread = threading.Thread(target=run, args=(scenario(),))
    thread.start()
    ready.wait(5)
    result = process.terminate()
    peer.close()
    over.set()
    thread.join(10)

    assert result.is_success
    assert first.fileno() == -1
    assert usable == [True]


def test_a_transport_that_reads_nothing_at_the_moment_is_closed_through_itself(
    manager: ProcessManager,
) -> None:
    """It is not polled, but would be again: its loop knows it."""

    async def scenario() -> None:
        process = manager.create_process("paused")
        sock, peer = socket.socketpair()
        number = sock.fileno()
        process.adopt(sock)
        _, writer = await asyncio.open_connection(sock=sock)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport, too

        result = await process.terminate_async()
        await asyncio.sleep(0)

        assert result.is_success
        assert writer.is_closing()
        peer.close()
        assert await is_usable(number)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "make", [selectors.EpollSelector, selectors.PollSelector, selectors.SelectSelector]
)
def test_a_selector_forgets_it(
    manager: ProcessManager, make: Callable[[], selectors.BaseSelector]
) -> None:
    """cpython#87079: a thread that waits in `select` is woken, and the selector's map is right."""
    process = manager.create_process("selected")
    sock, peer = socket.socketpair()
    number = sock.fileno()
    process.adopt(sock)
    with make() as selector:
        selector.register(sock, selectors.EVENT_READ)
        thread = threading.Thread(target=selector.select, args=(60,))
        thread.start()
        _wait_until_asleep(thread)
        result = process.terminate()
        thread.join(10)

        assert not thread.is_alive()
        assert result.is_success
        assert number not in selector.get_map()
    peer.close()


def test_an_epoll_instance_that_nobody_is_known_to_have_makes_it_busy(
    manager: ProcessManager,
) -> None:
    """What cannot be detached stays open, and the account says the way out."""
    process = manager.create_process("polled")
    sock, peer = socket.socketpair()
    process.adopt(sock)
    with select.epoll() as epoll:
        epoll.register(sock, select.EPOLLIN)
        result = process.terminate()

        assert [error.outcome for error in result.errors] == [Outcome.BUSY]
        assert "unregister it there" in result.errors[0].message
        assert sock.fileno() != -1
    manager.close()

    assert sock.fileno() == -1
    peer.close()


@pytest.mark.parametrize("adopted", ["server", "its socket"])
def test_serve_forever_ends(manager: ProcessManager, adopted: str) -> None:
    """cpython#87079: `serve_forever` polled a number that was closed, at full speed."""
    process = manager.create_process("web")
    server = http.server.ThreadingHTTPServer(LOOPBACK, http.server.BaseHTTPRequestHandler)
    process.adopt(server if adopted == "server" else server.socket)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = socket.create_connection(server.server_address[:2])  # type: ignore[arg-type]  # IPv4
    client.send(b"GET")

    result = process.terminate(grace=2)
    thread.join(5)
    client.settimeout(5)

    # A reset, if nobody had read what it sent.
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""

    assert not thread.is_alive()
    assert result.is_success
    assert server.fileno() == -1
    client.close()


def test_the_wakeup_descriptor_of_signals_is_given_up(manager: ProcessManager) -> None:
    """cpython#88968: signals would go on being written to a number that is somebody else's."""
    process = manager.create_process("signals")
    sock, peer = socket.socketpair()
    sock.setblocking(False)
    process.adopt(sock)
    before = signal.set_wakeup_fd(sock.fileno())
    try:
        result = process.terminate()
    finally:
        left = signal.set_wakeup_fd(before)

    assert result.is_success
    assert left == -1
    peer.close()


def _wait_until_asleep(thread: threading.Thread) -> None:
    """Wait until a thread is in poll, select, epoll_wait or one of their kin (proc(5))."""
    over = time.monotonic() + 10
    while time.monotonic() < over:
        with open(f"/proc/self/task/{thread.native_id}/syscall", encoding="ascii") as file:
            if file.read().split()[0] in {"7", "23", "232", "270", "271", "281"}:
                return
        time.sleep(0.001)
    pytest.fail("the thread never polled")
