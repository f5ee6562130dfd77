"""Acquire against terminate, from threads, over all kinds, many times; the kernel counts."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from drivers import LoopThread, drivers

from probate import ProbateError, ProcessTerminatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from probate import ProcessManager

ROUNDS = 40
NAMES = ["udp", "adopted socket", "map", "adopted map", "task", "adopted task", "handler", "ring"]


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Have threads take turns as often as the interpreter lets them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def acquire(
    make: Callable[[int], object],
    pid: int,
    start: threading.Barrier,
    refusals: list[BaseException],
) -> None:
    """Acquire until refused."""
    start.wait()
    try:
        while True:
            make(pid)
    except ProcessTerminatedError as error:
        refusals.append(error)


@pytest.mark.usefixtures("nothing_remains")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_acquired_while_its_owner_ends_is_given_back(
    manager: ProcessManager, name: str
) -> None:
    """Late registration leaked for ever; terminate during create left half a thing behind.

    Each acquisition either comes before the end, and is settled with it, or is refused.
    """
    refused = 0
    with LoopThread() as loop:
        make = drivers(manager.orchestrator, loop)[name].make
        for _ in range(ROUNDS):
            process = manager.create_process("racer")
            start = threading.Barrier(3)
            refusals: list[BaseException] = []

            arguments = (make, process.pid, start, refusals)
            threads = [threading.Thread(target=acquire, args=arguments) for _ in range(2)]
            for thread in threads:
                thread.start()
            start.wait()
            result = process.terminate(grace=5)
            for thread in threads:
                thread.join()
            refused += len(refusals)

            assert result.errors == ()
            assert not manager.orchestrator.has_resources(process.pid)

    assert refused == 2 * ROUNDS


@pytest.mark.usefixtures("nothing_remains")
def test_many_processes_end_at_once_each_with_its_own(manager: ProcessManager) -> None:
    """Concurrent use of one orchestrator: each account has exactly what its process owned."""
    with LoopThread() as loop:
        makes = [driver.make for driver in drivers(manager.orchestrator, loop).values()]
        processes = [manager.create_process(str(number)) for number in range(24)]
        for number, process in enumerate(processes):
            for make in makes[: 1 + number % len(makes)]:
                make(process.pid)
        start = threading.Barrier(len(processes))
        freed: dict[int, int] = {}

        def end(pid: int) -> None:
            start.wait()
            freed[pid] = manager.terminate_process(pid, grace=5).stats.resources_freed

        threads = [threading.Thread(target=end, args=(process.pid,)) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    expected = {p.pid: 1 + number % len(makes) for number, p in enumerate(processes)}
    assert freed == expected
    assert manager.totals.resources_freed == sum(expected.values())


@pytest.mark.usefixtures("nothing_remains")
def test_two_owners_cannot_both_have_a_thing(manager: ProcessManager) -> None:
    """Adopted from two threads for two processes at once, it has one owner, and is freed once."""
    for _ in range(ROUNDS):
        processes = [manager.create_process(name) for name in ("a", "b")]
        thing = socket.socket()
        start = threading.Barrier(2)

        def adopt(pid: int, start: threading.Barrier = start, thing: socket.socket = thing) -> None:
            start.wait()
            with contextlib.suppress(ProbateError):
                manager.orchestrator.adopt(pid, thing)

        threads = [threading.Thread(target=adopt, args=(process.pid,)) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        freed = [process.terminate().stats.resources_freed for process in processes]

        assert sorted(freed) == [0, 1]
