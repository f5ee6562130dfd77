"""A transport is closed on the loop that it belongs to: gently, then by force, with an account."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvloop
from tasks_loops import LoopThread
from threads import in_thread

from probate import BusyResourceError, Outcome, ReleaseError
from probate.system import BoundTransport, is_transport, loop_of, parts_of, transport_of
from probate.system.loops import holding_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

#: More than a pipe holds, and how much that is (pipe(7)).
WRITTEN: Final = 1_000_000
HELD: Final = 65536

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture(scope="module", autouse=True)
def uvloop_has_run() -> None:
    """What uvloop opens once, for good, is no leak."""
    uvloop.run(asyncio.sleep(0))


@pytest.fixture(params=list(LOOPS))
def there(request: pytest.FixtureRequest) -> Iterator[LoopThread]:
    """A loop of either kind that runs on a thread of its own; what it reports fails the test."""
    reported: list[dict[str, Any]] = []
    with LoopThread(LOOPS[request.param]()) as thread:
        thread.loop.set_exception_handler(lambda _, context: reported.append(context))
        yield thread
    assert reported == []


@pytest.fixture
def pipe() -> Iterator[tuple[int, Any]]:
    """The number to read from, which blocks, and the file to write to."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", 0) as file:
        yield reading, file
    os.close(reading)


async def written(file: Any, count: int = WRITTEN) -> Any:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_write_pipe(asyncio.Protocol, file)
    transport.write(bytes(count))
    return transport


# -- what it is ----------------------------------------------------------------


def test_a_transport_tells_its_loop_from_any_thread(
    there: LoopThread, pipe: tuple[int, Any]
) -> None:
    """Also uvloop's, which shows it to the garbage collector alone."""
    transport = there.run(written(pipe[1], 1))

    assert loop_of(transport) is there.loop

    there.call(transport.close)


def test_what_it_can_do_makes_a_transport(there: LoopThread, pipe: tuple[int, Any]) -> None:
    """A stream writer has one, a file or a class is none."""
    transport = there.run(written(pipe[1], 1))
    ours, other = socket.socketpair()

    async def connected() -> asyncio.StreamWriter:
        return (await asyncio.open_connection(sock=ours))[1]

    writer = there.run(connected())

    assert is_transport(transport)
    assert parts_of(transport)[0].fileno() == pipe[1].fileno()
    assert not is_transport(pipe[1])
    assert not is_transport(asyncio.Transport)
    assert transport_of(writer) is writer.transport
    assert transport_of(transport) is transport

    there.call(writer.close)
    there.run(writer.wait_closed())
    there.call(transport.close)
    other.close()


# -- how it is closed ----------------------------------------------------------


def test_asked_it_sends_what_was_written_and_closes(
    there: LoopThread, pipe: tuple[int, Any]
) -> None:
    """The future is done when the number is free."""
    reading, file = pipe
    bound = BoundTransport(there.run(written(file)), there.loop)

    closed = bound.ask_to_close()
    left = WRITTEN
    while left:
        left -= len(os.read(reading, left))

    assert closed is not None
    closed.result(10)
    assert file.closed
    assert bound.ask_to_close() is None
    assert bound.release() is Outcome.RELEASED


def test_by_force_what_was_not_sent_is_an_error_with_its_number(
    there: LoopThread, pipe: tuple[int, Any]
) -> None:
    """And it is closed when that is raised."""
    reading, file = pipe
    bound = BoundTransport(there.run(written(file)), there.loop)

    with pytest.raises(ReleaseError, match=f"{WRITTEN - HELD} bytes written to it were not sent"):
        bound.release()

    assert file.closed
    assert len(os.read(reading, WRITTEN)) == HELD
    assert os.read(reading, 1) == b""


def test_one_that_only_reads_is_closed_by_force(there: LoopThread) -> None:
    """It has no `abort`, or one of uvloop's that says that it has none."""
    reading, writing = os.pipe()
    file = os.fdopen(reading, "rb", 0)
    transport, _ = there.run(there.loop.connect_read_pipe(asyncio.Protocol, file))

    assert BoundTransport(transport, there.loop).release() is Outcome.RELEASED

    assert file.closed
    os.close(writing)


def test_one_that_was_closed_elsewhere_is_already_gone(
    there: LoopThread, pipe: tuple[int, Any]
) -> None:
    """By whoever had it, before anybody asked."""
    _, file = pipe
    bound = BoundTransport(transport := there.run(written(file, 1)), there.loop)
    there.call(transport.close)
    there.run(asyncio.sleep(0.01))

    assert file.closed
    assert bound.release() is Outcome.ALREADY_GONE


@pytest.mark.parametrize("is_debug", [False, True])
def test_while_its_loop_waits_for_this_thread_it_is_closed_here(
    there: LoopThread, pipe: tuple[int, Any], is_debug: bool
) -> None:
    """Its next turn closes the number; debug mode, which forbids it elsewhere, is as before."""
    _, file = pipe
    there.loop.set_debug(is_debug)
    bound = BoundTransport(there.run(written(file)), there.loop)

    def release() -> Outcome:
        with holding_up(there.loop):
            return bound.release()

    def hold_up() -> None:
        thread, outcome = in_thread(release)
        thread.join(10)
        assert isinstance(outcome[0], ReleaseError)
        assert f"{WRITTEN - HELD} bytes" in str(outcome[0])

    there.call(hold_up)
    there.run(asyncio.sleep(0.01))

    assert there.loop.get_debug() is is_debug
    assert file.closed


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_what_a_loop_that_has_stopped_lost_is_told_once_it_has_closed(
    new_loop: Callable[[], asyncio.AbstractEventLoop], pipe: tuple[int, Any]
) -> None:
    """It was forgotten: the second attempt found nothing to send."""
    _, file = pipe
    loop = new_loop()
    bound = BoundTransport(loop.run_until_complete(written(file)), loop)

    for _ in range(2):
        with pytest.raises(BusyResourceError, match="no longer runs"):
            bound.release()
    assert not file.closed
    loop.run_until_complete(asyncio.sleep(0.01))
    with pytest.raises(ReleaseError, match=f"{WRITTEN - HELD} bytes"):
        bound.release()

    assert bound.has_closed()
    loop.close()
