"""Whatever polls a number, of whatever kind, lets go of it before it is closed, and is told."""

# ruff: noqa: SIM115  whoever adopts a file here closes it

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import selectors
import signal
import socket
import threading
import time
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import uvloop
from files_kernel import is_open
from threads import in_thread

from probate import Outcome, Process, ProcessManager
from probate.system import polled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

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
    """Have uvloop make the pipe and the threads that it keeps while the interpreter lives."""

    async def scenario() -> None:
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    uvloop.run(scenario())


class End(NamedTuple):
    """One end of something, which a process owns; the other is a stranger's."""

    number: int
    #: What a program has of it, and gives to a loop.
    native: Any
    other: Any


def socket_end(_: ProcessManager, process: Process, *, is_read: bool) -> End:
    ours, other = socket.socketpair()
    ours.setblocking(False)
    process.adopt(ours)
    return End(ours.fileno(), ours, other)


def pipe_of_the_kernel(*, is_read: bool) -> tuple[int, Any]:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return (reader, open(writer, "wb", 0)) if is_read else (writer, open(reader, "rb", 0))


def number_end(_: ProcessManager, process: Process, *, is_read: bool) -> End:
    number, other = pipe_of_the_kernel(is_read=is_read)
    process.adopt(number)
    return End(number, open(number, "rb" if is_read else "wb", 0), other)


def file_end(_: ProcessManager, process: Process, *, is_read: bool) -> End:
    number, other = pipe_of_the_kernel(is_read=is_read)
    file = open(number, "rb" if is_read else "wb", 0)
    process.adopt(file)
    return End(number, file, other)


def pipe_end(manager: ProcessManager, process: Process, *, is_read: bool) -> End:
    stranger = manager.create_process("stranger")
    owners = (process.pid, stranger.pid) if is_read else (stranger.pid, process.pid)
    reader, writer = manager.orchestrator["ipc"].manager.pipe(owners[0], writer=owners[1])
    end, other = (reader, writer) if is_read else (writer, reader)
    os.set_blocking(end.fileno(), False)
    return End(end.fileno(), end, other)


def connection_end(_: ProcessManager, process: Process, *, is_read: bool) -> End:
    ours, other = Pipe()
    os.set_blocking(ours.fileno(), False)
    process.adopt(ours)
    return End(ours.fileno(), ours, other)


#: Makes an end of each kind, to read or to write.
ENDS: Final = [socket_end, number_end, file_end, pipe_end, connection_end]

Make = Any


async def ended(process: Process, how: str) -> Any:
    """End a process in one of three ways, beside the loop that polls; return the account."""
    if how == "async":
        return await process.terminate_async()
    if how == "on another thread":
        return await asyncio.to_thread(process.terminate)
    return process.terminate()


def lets_go_only_later(how: str, make: Make) -> bool:
    """Whether uvloop, which does so at its next turn, holds up who cannot wait for that.

    The kind `ipc` leaves the transports of its pipes to close themselves.
    """
    is_uvloop = isinstance(asyncio.get_running_loop(), uvloop.Loop)
    return how == "on the loop" and is_uvloop and make is not pipe_end


WAYS: Final = ["async", "on the loop", "on another thread"]


@contextlib.contextmanager
def stranger_with(number: int) -> Iterator[None]:
    """Another file with that number, which is readable at once."""
    event = os.eventfd(1)
    if event != number:
        assert not is_open(number)
        os.dup2(event, number, inheritable=False)
        os.close(event)
    yield
    os.close(number)


# -- event loops ---------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("make", ENDS)
def test_a_loop_forgets_a_number_and_can_poll_the_next_file_with_it(
    manager: ProcessManager,
    run: Callable[[Coroutine[Any, Any, None]], None],
    make: Make,
    how: str,
) -> None:
    """cpython#88968, uvloop#653: the next, unrelated connection with that number hung for ever."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        process = manager.create_process("polled")
        end = make(manager, process, is_read=True)
        loop.add_reader(end.number, lambda: None)
        # uvloop tells the kernel at its next turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        result = await ended(process, how)

        assert result.is_success
        assert not is_open(end.number)
        with stranger_with(end.number):
            seen = asyncio.Event()
            loop.add_reader(end.number, seen.set)
            await asyncio.wait_for(seen.wait(), 10)
            loop.remove_reader(end.number)
        end.other.close()

    run(scenario())


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("make", ENDS[1:4])
def test_whoever_reads_a_stream_gets_its_end(
    manager: ProcessManager,
    run: Callable[[Coroutine[Any, Any, None]], None],
    make: Make,
    how: str,
) -> None:
    """connect_read_pipe: what waits ends, it does not wait for ever (cpython#88968)."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        process = manager.create_process("polled")
        end = make(manager, process, is_read=True)
        stream = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), end.native)
        waiting = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)

        result = await ended(process, how)

        if lets_go_only_later(how, make):
            # Its next turn lets go, and nobody could wait for that here.
            assert [error.outcome for error in result.errors] == [Outcome.BUSY]
            assert "has not let go of it yet" in result.errors[0].message
        else:
            assert result.is_success
        assert await asyncio.wait_for(waiting, 10) == b""
        assert not is_open(end.number)
        end.other.close()

    run(scenario())


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("make", ENDS[1:4])
def test_whoever_waits_to_write_to_a_stream_is_told(
    manager: ProcessManager,
    run: Callable[[Coroutine[Any, Any, None]], None],
    make: Make,
    how: str,
) -> None:
    """connect_write_pipe: `drain` ends, and bytes that are lost are an error (aiohttp#1369)."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        process = manager.create_process("polled")
        end = make(manager, process, is_read=False)
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, end.native
        )
        writer = asyncio.StreamWriter(transport, protocol, None, loop)
        writer.write(bytes(1 << 20))
        waiting = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(0)
        unsent = transport.get_write_buffer_size()

        result = await ended(process, how)

        if lets_go_only_later(how, make):
            assert [error.outcome for error in result.errors] == [Outcome.BUSY]
        else:
            assert [error.outcome for error in result.errors] == [Outcome.FAILED]
            words = "written to it were not sent" if make is pipe_end else "that were not written"
            assert f"{unsent} bytes {words}" in result.errors[0].message
        await asyncio.wait_for(waiting, 10)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(writer.drain(), 10)
        assert not is_open(end.number)
        end.other.close()

    run(scenario())


async def receive(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    await loop.sock_recv(sock, 1)


async def accept(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    await loop.sock_accept(sock)


async def connect(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    await loop.sock_connect(sock, address[0])


async def send(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    await loop.sock_sendall(sock, bytes(1 << 24))


#: Where nobody accepts any more.
address: list[Any] = []


@pytest.fixture
def deaf() -> Iterator[None]:
    """A listener whose backlog is full: who connects waits."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(LOOPBACK, backlog=0))
        address[:] = [listener.getsockname()]
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address[0])
        yield


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("wait", [receive, accept, connect, send])
def test_whatever_waits_for_a_socket_ends(
    manager: ProcessManager,
    run: Callable[[Coroutine[Any, Any, None]], None],
    wait: Callable[[asyncio.AbstractEventLoop, socket.socket], Coroutine[Any, Any, None]],
    how: str,
) -> None:
    """cpython#88968: with an error, or the end of the stream, and not never."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        process = manager.create_process("waits")
        sock, peer = socket.socketpair()
        if wait in (accept, connect):
            sock.close()
            sock = socket.create_server(LOOPBACK) if wait is accept else socket.socket()
        sock.setblocking(False)
        process.adopt(sock)
        waiting = asyncio.ensure_future(wait(loop, sock))
        async with asyncio.timeout(10):
            # uvloop has the address looked up first.
            while not polled({sock.fileno()}):  # noqa: ASYNC110  the kernel tells nobody
                await asyncio.sleep(0.001)

        result = await ended(process, how)
        done, _ = await asyncio.wait([waiting], timeout=10)

        assert result.is_success
        assert done == {waiting}
        with contextlib.suppress(OSError):
            waiting.result()
        assert sock.fileno() == -1
        peer.close()

    run(scenario())


# -- selectors -----------------------------------------------------------------------

SELECTORS: Final = [
    selectors.DefaultSelector,
    selectors.EpollSelector,
    selectors.PollSelector,
    selectors.SelectSelector,
]


@pytest.mark.parametrize("make_selector", SELECTORS)
@pytest.mark.parametrize("make", ENDS)
def test_a_selector_in_which_nobody_waits_forgets_a_number(
    manager: ProcessManager, make: Make, make_selector: type[selectors.BaseSelector]
) -> None:
    """cpython#87079: its next `select` tells of nothing, and the next file can be registered."""
    process = manager.create_process("selected")
    end = make(manager, process, is_read=True)
    with make_selector() as selector:
        selector.register(end.number, selectors.EVENT_READ)

        result = process.terminate()

        assert result.is_success
        assert not is_open(end.number)
        with stranger_with(end.number):
            assert selector.select(0) == []
            selector.register(end.number, selectors.EVENT_READ)
            assert len(selector.select(10)) == 1
    end.other.close()


@pytest.mark.parametrize("make_selector", SELECTORS[:2])
@pytest.mark.parametrize("make", ENDS)
def test_a_thread_that_waits_in_a_selector_is_woken(
    manager: ProcessManager, make: Make, make_selector: type[selectors.BaseSelector]
) -> None:
    """cpython#87079: it would wait for what can never come any more."""
    process = manager.create_process("selected")
    end = make(manager, process, is_read=True)
    with make_selector() as selector:
        selector.register(end.number, selectors.EVENT_READ)
        thread, outcome = in_thread(lambda: selector.select(60))
        _wait_until_asleep(thread)

        result = process.terminate()
        thread.join(10)

        assert not thread.is_alive()
        assert isinstance(outcome[0], list)
        assert result.is_success
        assert not is_open(end.number)
        assert end.number not in (selector.get_map() or ())
    end.other.close()


@pytest.mark.parametrize("make", ENDS)
def test_a_bare_epoll_instance_makes_it_busy(manager: ProcessManager, make: Make) -> None:
    """What cannot be detached stays open, and the account says the way out."""
    process = manager.create_process("polled")
    end = make(manager, process, is_read=True)
    with select.epoll() as epoll:
        epoll.register(end.number, select.EPOLLIN)

        result = process.terminate()

        assert [error.outcome for error in result.errors] == [Outcome.BUSY]
        assert f"epoll instance {epoll.fileno()} of this process" in result.errors[0].message
        assert "unregister it there" in result.errors[0].message
        assert is_open(end.number)

    assert manager.orchestrator.cleanup_process(process.pid, grace=0).is_success
    assert not is_open(end.number)
    end.other.close()


# -- signals -------------------------------------------------------------------------


@pytest.mark.parametrize("is_here", [True, False], ids=["main thread", "another thread"])
@pytest.mark.parametrize("make", ENDS)
def test_signals_are_written_to_a_closed_number_no_more(
    manager: ProcessManager, make: Make, is_here: bool
) -> None:
    """cpython#88968: set_wakeup_fd went on using the number, which was somebody else's by then."""
    process = manager.create_process("signals")
    end = make(manager, process, is_read=False)
    before = signal.set_wakeup_fd(end.number)
    try:
        if is_here:
            process.terminate()
        else:
            in_thread(process.terminate)[0].join(10)
    finally:
        left = signal.set_wakeup_fd(before)

    assert process.result
    assert process.result.is_success
    assert left == -1
    assert not is_open(end.number)
    end.other.close()


def test_the_number_of_somebody_else_stays_where_signals_are_written(
    manager: ProcessManager,
) -> None:
    """Nor is any signal lost that comes meanwhile: each is told of by a byte."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    count = 200
    before = signal.set_wakeup_fd(ours.fileno())
    handler = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        over = threading.Event()

        def send() -> None:
            for _ in range(count):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                time.sleep(0.0002)
            over.set()

        thread = threading.Thread(target=send)
        thread.start()
        while not over.is_set():
            process = manager.create_process("brief")
            socket_end(manager, process, is_read=False).other.close()
            process.terminate()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, handler)
        left = signal.set_wakeup_fd(before)

    assert left == ours.fileno()
    # The kernel merges signals that are pending at once; each that was handled is told of.
    assert 0 < len(theirs.recv(1 << 16)) <= count
    ours.close()
    theirs.close()


def _wait_until_asleep(thread: threading.Thread) -> None:
    """Wait until a thread is in epoll_wait or one of its kin (proc(5))."""
    over = time.monotonic() + 10
    while time.monotonic() < over:
        with open(f"/proc/self/task/{thread.native_id}/syscall", encoding="ascii") as file:
            if file.read().split()[0] in {"232", "281", "441"}:
                return
        time.sleep(0.001)
    pytest.fail("the thread never polled")
