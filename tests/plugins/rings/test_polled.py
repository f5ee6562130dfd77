"""Numbers of rings that event loops and selectors poll: let go of before they are closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import selectors
from typing import TYPE_CHECKING, Any

import pytest

from probate import BusyResourceError, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import ProcessManager
    from probate_rings import RingResource

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture(params=["zero-copy", "io_uring"])
def half(request: pytest.FixtureRequest) -> str:
    """One of the two sorts of rings; skips where there is no io_uring."""
    if request.param == "io_uring":
        request.getfixturevalue("iouring")
    return str(request.param)


def made(rings: RingResource, half: str, pid: int) -> tuple[Any, int]:
    """A ring, and a number of it that can be polled."""
    if half == "io_uring":
        uring = rings.iouring.create_ring(pid, 4)
        return uring, uring.fileno()
    ring = rings.zerocopy.create_ring(pid, slots=4, block_size=256)
    return ring, ring.filenos()[1]


@pytest.mark.parametrize("how", ["async", "on the loop", "by hand"])
def test_a_loop_lets_go_of_a_ring(
    manager: ProcessManager, rings: RingResource, half: str, how: str
) -> None:
    """cpython#88968: the next, unrelated file with the number was taken for the ring."""

    async def scenario() -> None:
        loop: Any = asyncio.get_running_loop()
        process = manager.create_process("polled")
        ring, number = made(rings, half, process.pid)
        loop.add_reader(number, lambda: None)

        if how == "by hand":
            (rings.iouring if half == "io_uring" else rings.zerocopy).close(process.pid, ring)
        elif how == "on the loop":
            assert process.terminate().is_success
        else:
            assert (await process.terminate_async()).is_success

        assert ring.closed
        assert number not in loop._selector.get_map()
        # The next with the number is not taken for it.
        stranger = os.eventfd(1)
        if stranger != number:
            os.dup2(stranger, number, inheritable=False)
        seen = loop.create_future()
        loop.add_reader(number, seen.set_result, None)
        await asyncio.wait_for(seen, 10)
        loop.remove_reader(number)
        for fd in {stranger, number}:
            os.close(fd)

    asyncio.run(scenario())


def test_a_selector_forgets_a_ring(manager: ProcessManager, rings: RingResource, half: str) -> None:
    """cpython#87079: its map is right, and it can poll the next file with the number."""
    process = manager.create_process("selected")
    _, number = made(rings, half, process.pid)
    with selectors.DefaultSelector() as selector:
        selector.register(number, selectors.EVENT_READ)

        assert process.terminate().is_success
        assert not selector.get_map()


@contextlib.contextmanager
def polled(number: int) -> Iterator[None]:
    """By an epoll instance of which nobody knows."""
    with select.epoll() as epoll:
        epoll.register(number, select.EPOLLIN)
        yield
        epoll.unregister(number)


def test_what_nobody_lets_go_of_is_busy_and_says_so(
    manager: ProcessManager, rings: RingResource, half: str
) -> None:
    """Neither closed nor counted; by hand it stays owned; and free when it is polled no more."""
    process = manager.create_process("busy")
    ring, number = made(rings, half, process.pid)
    with polled(number):
        with pytest.raises(BusyResourceError, match="polled by epoll instance"):
            (rings.iouring if half == "io_uring" else rings.zerocopy).close(process.pid, ring)
        result = process.terminate()

        assert [error.outcome for error in result.errors] == [Outcome.BUSY]
        assert "unregister it there" in result.errors[0].message
        os.fstat(number)

    assert manager.orchestrator.cleanup_process(process.pid).stats.by_type == {"rings": 1}
