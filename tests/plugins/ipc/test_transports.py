"""Transports of event loops on what ipc owns: they send what was written, and the rest is told."""

from __future__ import annotations

import array
import asyncio
import fcntl
import gc
import os
import socket
import termios
import threading
import time
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvloop
from tasks_loops import LoopThread
from threads import in_thread

from probate import (
    AlreadyOwnedError,
    NotOwnedError,
    Outcome,
    ProcessManager,
    ReleaseError,
    ResourceOrchestrator,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from probate import CleanupResult, Process
    from probate_ipc import IpcManager, PipeWriter

#: How a program runs on each kind of loop.
RUNNERS: Final[dict[str, Callable[[Coroutine[Any, Any, None]], None]]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
}

#: Makes a loop of each kind.
LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

#: More than a pipe holds.
WRITTEN: Final = 3_000_000

#: Seconds that are more than enough, where what is waited for comes.
ENOUGH: Final = 30

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture(params=list(RUNNERS))
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    return RUNNERS[request.param]


@pytest.fixture(params=list(LOOPS))
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return LOOPS[request.param]


@pytest.fixture(scope="module", autouse=True)
def uvloop_has_run() -> None:
    """What uvloop opens once, for good, is no leak."""
    uvloop.run(asyncio.sleep(0))


class Told(asyncio.Protocol):
    """Notes what a protocol is told at the end."""

    def __init__(self) -> None:
        self.lost: list[Exception | None] = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


async def written(end: Any, count: int = WRITTEN) -> asyncio.WriteTransport:
    """Have the loop that runs here write so much to an end."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_write_pipe(Told, end)
    transport.write(bytes(count))
    return transport


def taken(number: int, pause: float = 0, at_most: int = WRITTEN + 1) -> int:
    """Read until the end, or so much; return how many bytes came."""
    count = 0
    while count < at_most and (data := os.read(number, 1 << 16)):
        count += len(data)
        time.sleep(pause)
    return count


def pipe_to_another(
    manager: ProcessManager, ipc: IpcManager, owner: Process
) -> tuple[int, PipeWriter]:
    """A pipe whose write end `owner` has, and the number of the other, which blocks."""
    reader, end = ipc.pipe(manager.create_process("reader").pid, writer=owner.pid)
    return reader.fileno(), end


def inside(number: int) -> int:
    """How many bytes a pipe holds, as the kernel tells (pipe(7))."""
    found = array.array("i", [0])
    fcntl.ioctl(number, termios.FIONREAD, found)
    return found[0]


def is_open(end: PipeWriter) -> bool:
    """Whether it still has its number."""
    return end.number != -1


def only_error(result: CleanupResult) -> str:
    """What the only error of an account says, which is of something that was released."""
    [error] = result.errors
    assert error.outcome is Outcome.FAILED
    return error.message


# -- what arrives --------------------------------------------------------------


@pytest.mark.parametrize("how", ["async", "aclose", "on another thread"])
@pytest.mark.parametrize("pause", [0, 0.002], ids=["ready", "slow"])
def test_what_was_written_arrives_while_somebody_reads(
    run: Callable[[Coroutine[Any, Any, None]], None], how: str, pause: float
) -> None:
    """Of 3,000,000 bytes 2,934,464 were lost, although their reader was ready."""

    async def scenario() -> None:
        manager = ProcessManager.builder().with_grace(ENOUGH).build()
        ipc = manager.orchestrator["ipc"].manager
        owner = manager.create_process("owner")
        reading, writing = os.pipe()
        file = os.fdopen(writing, "wb", 0)
        number, end = pipe_to_another(manager, ipc, owner)
        numbers = [reading, os.dup(number)]  # `aclose` also takes what the reader's process owns
        for each in (file, end):
            transport = await written(each)
            if each is file:
                ipc.adopt(owner.pid, transport)
        readers = [in_thread(lambda n=each: taken(n, pause)) for each in numbers]  # type: ignore[misc]

        if how == "async":
            await owner.terminate_async()
        elif how == "aclose":
            await manager.aclose()
        else:
            await asyncio.to_thread(owner.terminate)

        assert owner.result is not None
        assert owner.result.is_success
        assert owner.result.stats.by_type == {"ipc": 2}
        for thread, _ in readers:
            await asyncio.to_thread(thread.join, ENOUGH)
        assert [outcome for _, outcome in readers] == [[WRITTEN], [WRITTEN]]
        assert file.closed
        assert end.closed
        await manager.aclose()
        for opened in numbers:
            os.close(opened)

    run(scenario())


def test_it_is_sent_by_a_loop_on_another_thread(
    manager: ProcessManager,
    ipc: IpcManager,
    owner: Process,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Whose transports are its alone to touch; the end comes from a thread without a loop."""
    with LoopThread(new_loop()) as there:
        number, end = pipe_to_another(manager, ipc, owner)
        there.run(written(end))
        thread, outcome = in_thread(lambda: taken(number))

        result = owner.terminate(grace=ENOUGH)
        thread.join(ENOUGH)

        assert result.is_success
        assert outcome == [WRITTEN]
        assert end.closed


def test_what_is_written_in_the_same_turn_arrives(
    manager: ProcessManager,
    ipc: IpcManager,
    owner: Process,
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """No epoll instance need know of it yet: uvloop tells the kernel at its next turn."""

    async def scenario() -> None:
        number, end = pipe_to_another(manager, ipc, owner)
        await written(end, 1000)

        assert (await owner.terminate_async(grace=ENOUGH)).is_success
        assert inside(number) == 1000

    run(scenario())


def test_the_flush_that_a_program_has_begun_is_waited_for(
    manager: ProcessManager,
    ipc: IpcManager,
    owner: Process,
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """It had closed the transport itself, and its bytes were lost all the same."""

    async def scenario() -> None:
        number, end = pipe_to_another(manager, ipc, owner)
        (await written(end)).close()
        thread, outcome = in_thread(lambda: taken(number))

        assert (await owner.terminate_async(grace=ENOUGH)).is_success

        await asyncio.to_thread(thread.join, ENOUGH)
        assert outcome == [WRITTEN]

    run(scenario())


def test_who_reads_within_the_same_owner_gets_all_and_the_end(
    ipc: IpcManager, owner: Process, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """What reads goes on within the grace: what is written to it may be its own owner's."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reader, end = ipc.pipe(owner.pid)
        stream = asyncio.StreamReader(limit=2 * WRITTEN)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), reader)
        await written(end)

        result = await owner.terminate_async(grace=ENOUGH)

        assert result.is_success
        assert result.stats.by_type == {"ipc": 2}
        assert len(await asyncio.wait_for(stream.read(), ENOUGH)) == WRITTEN

    run(scenario())


def test_the_standard_input_of_a_child_is_sent_to_its_end(
    ipc: IpcManager, owner: Process, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """As `wc` counts it; its stream writer is what is adopted, and found by."""

    async def scenario() -> None:
        child = await asyncio.create_subprocess_exec(
            "wc", "-c", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdin is not None
        assert child.stdout is not None
        adopted = ipc.adopt(owner.pid, child.stdin)
        child.stdin.write(bytes(WRITTEN))

        result = await owner.terminate_async(grace=ENOUGH)

        assert adopted is not None
        assert result.is_success
        assert result.stats.by_type == {"ipc": 1}
        assert int(await asyncio.wait_for(child.stdout.read(), ENOUGH)) == WRITTEN
        await child.wait()

    run(scenario())


def test_what_is_written_to_a_connection_arrives(
    ipc: IpcManager, owner: Process, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """A connection of multiprocessing is one that loops can write to as well."""

    async def scenario() -> None:
        ours, other = Pipe()
        ipc.adopt(owner.pid, ours)
        await written(ours)
        thread, outcome = in_thread(lambda: taken(other.fileno()))

        assert (await owner.terminate_async(grace=ENOUGH)).is_success

        await asyncio.to_thread(thread.join, ENOUGH)
        assert outcome == [WRITTEN]
        assert ours.closed
        other.close()

    run(scenario())


@pytest.mark.parametrize("closes", [True, False])
def test_a_transport_of_another_file_with_the_number_is_closed_with_it(
    manager: ProcessManager,
    ipc: IpcManager,
    owner: Process,
    run: Callable[[Coroutine[Any, Any, None]], None],
    closes: bool,
) -> None:
    """Also if that file leaves the number open: what owns it closes it then."""

    async def scenario() -> None:
        number, end = pipe_to_another(manager, ipc, owner)
        await written(os.fdopen(end.fileno(), "wb", 0, closefd=closes))
        thread, outcome = in_thread(lambda: taken(number))

        assert (await owner.terminate_async(grace=ENOUGH)).is_success

        await asyncio.to_thread(thread.join, ENOUGH)
        assert outcome == [WRITTEN]
        assert end.closed

    run(scenario())


# -- what is lost --------------------------------------------------------------


@pytest.mark.parametrize("how", ["async", "on the loop", "on another thread", "by hand"])
@pytest.mark.parametrize("is_debug", [False, True])
def test_what_nobody_reads_within_the_grace_is_an_error_with_its_number(
    manager: ProcessManager,
    ipc: IpcManager,
    owner: Process,
    run: Callable[[Coroutine[Any, Any, None]], None],
    how: str,
    is_debug: bool,
) -> None:
    """Bytes that force loses are told (aiohttp#1369): with those in the pipe they are all."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(is_debug)
        number, end = pipe_to_another(manager, ipc, owner)
        transport = await written(end)

        if how == "async":
            message = only_error(await owner.terminate_async(grace=0.1))
        elif how == "on the loop":
            message = only_error(owner.terminate(grace=0.1))
            # Who reads need not wait for a turn of the loop; libuv's number is its own to close.
            assert end.closed or isinstance(loop, uvloop.Loop)
        elif how == "by hand":
            with pytest.raises(ReleaseError) as caught:
                ipc.close(owner.pid, end)
            message = str(caught.value)
        else:
            message = only_error(await asyncio.to_thread(owner.terminate, grace=0.1))

        lost = WRITTEN - inside(number)
        assert f"closed, but {lost} bytes written to it were not sent, and are lost" in message
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert end.closed
        protocol = transport.get_protocol()
        assert getattr(protocol, "lost", [None]) == [None]
        loop.set_debug(False)

    run(scenario())


def test_what_a_slow_reader_has_not_taken_is_an_error_with_its_number(
    manager: ProcessManager,
    ipc: IpcManager,
    owner: Process,
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """What it took, and what is lost, is all that was written."""

    async def scenario() -> None:
        number, end = pipe_to_another(manager, ipc, owner)
        await written(end)
        thread, outcome = in_thread(lambda: taken(number, 0.05))

        message = only_error(await owner.terminate_async(grace=0.3))

        await asyncio.to_thread(thread.join, ENOUGH)
        [count] = outcome
        assert isinstance(count, int)
        assert 1 << 16 < count < WRITTEN
        assert f"{WRITTEN - count} bytes written to it were not sent" in message

    run(scenario())


@pytest.mark.parametrize("count", [1 << 16, 1 << 20])
def test_what_is_lost_to_a_reader_that_goes_away_is_an_error(
    manager: ProcessManager,
    ipc: IpcManager,
    owner: Process,
    run: Callable[[Coroutine[Any, Any, None]], None],
    count: int,
) -> None:
    """The transport closes at once then, as if all were sent; its protocol alone is told."""

    async def scenario() -> None:
        other = manager.create_process("reader")
        reader, end = ipc.pipe(other.pid, writer=owner.pid)
        transport = await written(end)
        protocol = transport.get_protocol()
        assert isinstance(protocol, Told)
        ending = asyncio.ensure_future(owner.terminate_async(grace=ENOUGH))
        await asyncio.to_thread(taken, reader.fileno(), 0, count)
        ipc.close(other.pid, reader)

        message = only_error(await asyncio.wait_for(ending, ENOUGH))

        assert "its reader has gone" in message
        told = int(message.partition("up to ")[2].partition(" bytes")[0])
        assert WRITTEN - count - (1 << 17) <= told <= WRITTEN
        assert [type(each) for each in protocol.lost] == [BrokenPipeError]
        assert end.closed

    run(scenario())


def test_what_was_lost_before_the_end_was_its_programs_to_hear(
    ipc: IpcManager, owner: Process, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """The reader went away while all still ran: the protocol was told, and nothing is left."""

    async def scenario() -> None:
        reader, end = ipc.pipe(owner.pid)
        transport = await written(end)
        protocol = transport.get_protocol()
        assert isinstance(protocol, Told)
        ipc.close(owner.pid, reader)
        async with asyncio.timeout(ENOUGH):
            while not end.closed:  # noqa: ASYNC110  as the loop gets round to it
                await asyncio.sleep(0.001)

        result = await owner.terminate_async(grace=ENOUGH)

        assert result.is_success
        assert not result.has_freed_resources
        assert [type(each) for each in protocol.lost] == [BrokenPipeError]

    run(scenario())


# -- loops that do not run -----------------------------------------------------


# The transport itself complains when it is collected: it was never told.
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
@pytest.mark.parametrize("count", [1000, WRITTEN])
def test_a_transport_whose_loop_is_closed_is_closed_by_its_number(
    manager: ProcessManager, ipc: IpcManager, owner: Process, count: int
) -> None:
    """As in cpython PR 92842: nobody is left to ask; what it had to send was lost in silence."""
    loop = asyncio.new_event_loop()
    number, end = pipe_to_another(manager, ipc, owner)
    transport = loop.run_until_complete(written(end, count))
    loop.close()

    result = owner.terminate(grace=ENOUGH)

    assert end.closed
    lost = max(0, count - (1 << 16))
    assert taken(number) == count - lost
    if lost:
        assert f"closed, but {lost} bytes written to it were not sent" in only_error(result)
    else:
        assert result.is_success
        assert result.stats.by_type == {"ipc": 1}
    del transport
    gc.collect()


# As an error, this would keep `loop.close` from its end.
@pytest.mark.filterwarnings("ignore:unclosed resource:ResourceWarning")
def test_a_loop_of_uvloop_has_closed_its_transports_when_it_is_closed(
    manager: ProcessManager, ipc: IpcManager, owner: Process
) -> None:
    """With what they had to send, of which nobody knows any more: nothing is left to give back."""
    loop = uvloop.new_event_loop()
    number, end = pipe_to_another(manager, ipc, owner)
    loop.run_until_complete(written(end))
    loop.close()

    result = owner.terminate(grace=ENOUGH)

    assert result.is_success
    assert not result.has_freed_resources
    assert taken(number) == 1 << 16


def test_a_transport_whose_loop_has_stopped_is_closed_where_that_needs_no_turn_of_it(
    manager: ProcessManager, ipc: IpcManager, owner: Process
) -> None:
    """Of asyncio: it polls the number no more, and whoever reads gets the end."""
    loop = asyncio.new_event_loop()
    number, end = pipe_to_another(manager, ipc, owner)
    loop.run_until_complete(written(end))

    message = only_error(owner.terminate(grace=ENOUGH))

    assert f"closed, but {WRITTEN - (1 << 16)} bytes" in message
    assert end.closed
    assert taken(number) == 1 << 16
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_a_transport_whose_loop_of_uvloop_has_stopped_is_busy_until_it_runs(
    manager: ProcessManager, ipc: IpcManager, owner: Process
) -> None:
    """To be closed by libuv, whoever had the number by then; the loss is not forgotten."""
    loop = uvloop.new_event_loop()
    number, end = pipe_to_another(manager, ipc, owner)
    loop.run_until_complete(written(end))

    result = owner.terminate(grace=0)

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "its event loop no longer runs" in result.errors[0].message
    assert is_open(end)

    loop.run_until_complete(asyncio.sleep(0))
    again = manager.orchestrator.cleanup_process(owner.pid, grace=0)

    assert f"{WRITTEN - (1 << 16)} bytes written to it were not sent" in only_error(again)
    assert end.closed
    assert taken(number) == 1 << 16
    loop.close()


def test_a_loop_that_is_held_up_makes_it_busy(
    manager: ProcessManager,
    ipc: IpcManager,
    owner: Process,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Nobody else may touch its transports; once it turns again, it closes them.

    What it writes until then is not told to be lost.
    """
    go_on = threading.Event()
    with LoopThread(new_loop()) as there:
        number, end = pipe_to_another(manager, ipc, owner)
        there.run(written(end))
        there.loop.call_soon_threadsafe(go_on.wait, ENOUGH)
        orchestrator = manager.orchestrator

        result = orchestrator.cleanup_process(owner.pid, grace=0.1, deadline=2)

        assert [error.outcome for error in result.errors] == [Outcome.BUSY]
        assert "its event loop has not closed it yet" in result.errors[0].message
        assert is_open(end)
        # uvloop writes once more before it closes what was aborted.
        there.loop.call_soon_threadsafe(os.read, number, 1 << 16)
        go_on.set()
        message = only_error(orchestrator.cleanup_process(owner.pid, grace=0))
        assert end.closed
        lost = WRITTEN - (1 << 16) - inside(number)
        assert f"{lost} bytes written to it were not sent" in message


# -- one and many --------------------------------------------------------------


@pytest.mark.parametrize("is_here", [True, False], ids=["here", "elsewhere"])
def test_of_many_all_arrives(
    manager: ProcessManager,
    ipc: IpcManager,
    owner: Process,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    is_here: bool,
) -> None:
    """One look finds them all, among pipes of which no loop knows, on the loop and off it."""
    with LoopThread(new_loop()) as there:
        ends = []
        for _ in range(10):
            ends.append(pipe_to_another(manager, ipc, owner))
            there.run(written(ends[-1][1], 100_000))
            ipc.pipe(owner.pid)
        readers = [in_thread(lambda n=number: taken(n)) for number, _ in ends]  # type: ignore[misc]

        if is_here:
            result = there.run(owner.terminate_async(grace=ENOUGH))
        else:
            result = owner.terminate(grace=ENOUGH)

        for thread, _ in readers:
            thread.join(ENOUGH)
        assert result.is_success
        assert result.stats.by_type == {"ipc": 30}
        assert [outcome for _, outcome in readers] == [[100_000]] * 10


def test_nothing_is_looked_for_where_a_loop_tells_or_none_can_have_it(
    manager: ProcessManager, ipc: IpcManager, owner: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at all objects takes long: not for pipes that block, nor where the loop tells."""

    async def scenario() -> None:
        number, end = pipe_to_another(manager, ipc, owner)
        await written(end)
        ipc.pipe(owner.pid)
        thread, outcome = in_thread(lambda: taken(number))
        monkeypatch.setattr(gc, "get_objects", pytest.fail)

        assert (await owner.terminate_async(grace=ENOUGH)).is_success

        monkeypatch.undo()
        await asyncio.to_thread(thread.join, ENOUGH)
        assert outcome == [WRITTEN]

    asyncio.run(scenario())


# -- what reads ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["async", "on the loop", "on another thread"])
def test_a_transport_that_has_paused_reading_is_closed_and_told(
    ipc: IpcManager,
    owner: Process,
    run: Callable[[Coroutine[Any, Any, None]], None],
    how: str,
) -> None:
    """Nobody polls it at the moment: once it went on, it read whatever had its number by then."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reader, _ = ipc.pipe(owner.pid)
        transport, protocol = await loop.connect_read_pipe(Told, reader)
        transport.pause_reading()
        await asyncio.sleep(0)

        if how == "async":
            result = await owner.terminate_async()
        elif how == "on the loop":
            result = owner.terminate()
        else:
            result = await asyncio.to_thread(owner.terminate)

        assert result.is_success
        assert result.stats.by_type == {"ipc": 2}
        assert transport.is_closing()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert protocol.lost == [None]
        assert reader.closed

    run(scenario())


# -- whose they are ------------------------------------------------------------


def test_a_transport_goes_with_the_pipe_that_its_owner_has(
    manager: ProcessManager, ipc: IpcManager, owner: Process
) -> None:
    """It has one owner and one id, and is given back by either; nobody else can have it."""

    async def scenario() -> None:
        _, end = pipe_to_another(manager, ipc, owner)
        transport = await written(end, 1000)
        other = manager.create_process("other")
        with pytest.raises(AlreadyOwnedError, match=f"owned by process {owner.pid}"):
            ipc.adopt(other.pid, transport)

        assert ipc.adopt(owner.pid, transport) == ipc.table.find(owner.pid, end)

        assert ipc.table.count(owner.pid) == 1
        with pytest.raises(NotOwnedError):
            ipc.close(other.pid, transport)
        ipc.close(owner.pid, transport)
        assert end.closed
        assert ipc.table.count(owner.pid) == 0

    asyncio.run(scenario())


def test_a_closed_transport_is_not_adopted(
    ipc: IpcManager, owner: Process, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """Nothing to own; and a transport of a socket is another kind's."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        transport, _ = await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(reading, "rb", 0))
        transport.close()
        await asyncio.sleep(0.01)
        ours, other = socket.socketpair()
        sock, _ = await loop.create_connection(asyncio.Protocol, sock=ours)

        closed.append(transport)
        assert ipc.adopt(owner.pid, sock) is None

        sock.abort()
        await asyncio.sleep(0.01)
        os.close(writing)
        other.close()

    closed: list[object] = []
    run(scenario())

    with pytest.raises(ValueError, match="closed or removed"):
        ipc.adopt(owner.pid, closed[0])


def test_it_is_of_this_kind_where_there_is_no_kind_of_sockets(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """With that, it is adopted as one of its own; without, it was of no kind at all."""

    async def scenario() -> None:
        orchestrator = ResourceOrchestrator().discover(only=["ipc"])
        builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
        async with builder.with_grace(ENOUGH).build() as manager:
            owner = manager.create_process("owner")
            reading, writing = os.pipe()
            transport = await written(os.fdopen(writing, "wb", 0))
            owner.adopt(transport)
            thread, outcome = in_thread(lambda: taken(reading))

            result = await owner.terminate_async()

            assert result.is_success
            assert result.stats.by_type == {"ipc": 1}
            await asyncio.to_thread(thread.join, ENOUGH)
            assert outcome == [WRITTEN]
            os.close(reading)

    run(scenario())
