"""Whoever polls a number lets go of it before it is closed, or is named."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import selectors
import threading
from typing import TYPE_CHECKING

import pytest

from probate.system import LetGo, let_go, polled

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe; closed after the test, unless the test has."""
    ends = os.pipe()
    yield ends
    for number in ends:
        try:
            os.close(number)
        except OSError:
            continue


def test_what_nobody_polls_is_left_as_it_is(pipe: tuple[int, int]) -> None:
    """No instance, no message, nothing lost."""
    assert polled({*pipe}) == {}
    assert let_go(pipe[0]) == LetGo()


def test_a_selector_lets_go(pipe: tuple[int, int]) -> None:
    """It forgets the number, too, so that the next file with it can be registered."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe[0], selectors.EVENT_READ)
        assert set(polled({*pipe})) == {pipe[0]}

        assert let_go(pipe[0]) == LetGo()
        assert polled({*pipe}) == {}
        assert pipe[0] not in selector.get_map()


def test_a_bare_epoll_instance_is_named(pipe: tuple[int, int]) -> None:
    """Nobody knows what is above it: whoever made it has to unregister the number."""
    with select.epoll() as epoll:
        epoll.register(pipe[0], select.EPOLLIN)

        found = let_go(pipe[0])

        assert found.by.startswith(f"polled by epoll instance {epoll.fileno()} of this process")
        assert found.lost == 0


def test_without_free_descriptors_selectors_tell(pipe: tuple[int, int]) -> None:
    """None is left to look at /proc with (EMFILE), which must not keep anything from its end."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    with selectors.DefaultSelector() as selector:
        selector.register(pipe[0], selectors.EVENT_READ)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            found = polled({*pipe})
            came_of_it = let_go(pipe[0])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        assert found == {pipe[0]: [selector.fileno()]}
        assert came_of_it == LetGo()
        assert polled({*pipe}) == {}


@pytest.mark.parametrize("where", ["on the loop", "on another thread"])
def test_a_loop_lets_go_and_a_stream_ends(pipe: tuple[int, int], where: str) -> None:
    """Whoever reads a stream gets its end, and a callback is called no more (cpython#88968)."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        file = os.fdopen(pipe[0], "rb", 0)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
        waiting = asyncio.ensure_future(reader.read())
        other = os.eventfd(0)
        loop.add_reader(other, pytest.fail)
        await asyncio.sleep(0)

        def let_both_go() -> list[LetGo]:
            return [let_go(number) for number in (pipe[0], other)]

        if where == "on the loop":
            came_of_it = let_both_go()
        else:
            came_of_it = await asyncio.to_thread(let_both_go)

        assert came_of_it == [LetGo()] * 2
        os.eventfd_write(other, 1)
        assert await asyncio.wait_for(waiting, 10) == b""
        assert file.closed
        os.close(other)

    asyncio.run(scenario())


def test_bytes_that_a_transport_had_yet_to_write_are_counted(pipe: tuple[int, int]) -> None:
    """They are lost, and whoever has them lost says so (aiohttp#1369)."""

    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(pipe[1], "wb", 0))
        transport.write(bytes(1 << 20))
        buffered = transport.get_write_buffer_size()

        found = let_go(pipe[1])

        assert found == LetGo(lost=buffered)
        await asyncio.sleep(0)
        return found.lost

    assert asyncio.run(scenario()) > 0


def test_a_loop_that_is_held_up_has_not_let_go(pipe: tuple[int, int]) -> None:
    """Its thread is the only one that may do it, and is somewhere else: so it is said."""
    is_held, may_go = threading.Event(), threading.Event()

    async def scenario() -> None:
        asyncio.get_running_loop().add_reader(pipe[0], print)
        is_held.set()
        may_go.wait(10)

    thread = threading.Thread(target=asyncio.run, args=(scenario(),))
    thread.start()
    assert is_held.wait(10)

    found = let_go(pipe[0])
    may_go.set()
    thread.join(10)

    assert found.by == "polled by an event loop, which has not let go of it yet"
    assert let_go(pipe[0]) == LetGo()
