"""A number is closed only once the event loop that polls it has let go of it."""

from __future__ import annotations

import asyncio
import os
import select
from typing import TYPE_CHECKING, Any

import pytest
from files_kernel import is_open

from probate import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import Process, ProcessManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.mark.parametrize("is_number", [False, True])
@pytest.mark.parametrize("how", ["async", "on the loop", "on another thread"])
def test_whoever_reads_a_stream_of_an_adopted_pipe_gets_its_end(
    process: Process, how: str, is_number: bool
) -> None:
    """It waited for ever, and the next file with the number hung, too (cpython#88968)."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        number, writer = os.pipe()
        file = os.fdopen(number, "rb", 0)
        stream = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), file)
        process.adopt(number if is_number else file)
        waiting = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)

        if how == "async":
            result = await process.terminate_async()
        elif how == "on the loop":
            result = process.terminate()
        else:
            result = await asyncio.to_thread(process.terminate)

        assert str(result).endswith("1 resources freed, 0 bytes freed, 0 errors")
        assert await asyncio.wait_for(waiting, 10) == b""
        assert not is_open(number)
        os.close(writer)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "make",
    [lambda: os.eventfd(0), lambda: os.open("/dev/ptmx", os.O_RDWR)],
    ids=["eventfd", "terminal"],
)
def test_a_callback_is_called_no_more(process: Process, make: Callable[[], int]) -> None:
    """The loop forgets the number, and can poll the next file that has it."""

    async def scenario() -> None:
        loop: Any = asyncio.get_running_loop()
        number = make()
        process.adopt(number)
        loop.add_reader(number, pytest.fail)

        assert (await process.terminate_async()).is_success
        assert number not in loop._selector.get_map()
        assert not is_open(number)

    asyncio.run(scenario())


def test_what_a_transport_had_yet_to_write_is_an_error_with_its_number(process: Process) -> None:
    """Bytes that force loses are told, not counted as freed (aiohttp#1369)."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        file = os.fdopen(writer, "wb", 0)
        process.adopt(file)
        transport, _ = await loop.connect_write_pipe(asyncio.Protocol, file)
        transport.write(bytes(1 << 20))
        left = transport.get_write_buffer_size()

        result = await process.terminate_async()

        assert [error.outcome for error in result.errors] == [Outcome.FAILED]
        assert f"{left} bytes that were not written yet are lost" in result.errors[0].message
        assert file.closed
        os.close(reader)

    asyncio.run(scenario())


def test_what_nobody_lets_go_of_is_busy_and_says_so(
    manager: ProcessManager, process: Process
) -> None:
    """Neither closed nor counted, and tried again."""
    number = os.eventfd(0)
    process.adopt(number)
    with select.epoll() as epoll:
        epoll.register(number, select.EPOLLIN)

        result = process.terminate()

        assert [error.outcome for error in result.errors] == [Outcome.BUSY]
        assert f"epoll instance {epoll.fileno()} of this process" in result.errors[0].message
        assert is_open(number)

    assert manager.orchestrator.cleanup_process(process.pid, grace=0).is_success
    assert not is_open(number)
