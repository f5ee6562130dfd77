"""Ending a process that owns real things, beside a loop that closes the same things bare."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import signal
import socket
import tempfile
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from measure import LONG_WARM_UP, Row, compare, no_collector

from probate import ProcessManager

LOOPBACK: Final = ("127.0.0.1", 0)

#: 30 sockets, 20 maps, 20 tasks, 10 handlers, 20 files.
SOCKETS, MAPS, TASKS, HANDLERS, FILES = 30, 20, 20, 10, 20

MAP_BYTES: Final = 64 * 1024


def bound_udp() -> socket.socket:
    """A UDP socket on any free port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(LOOPBACK)
    return sock


def close_all(number: int) -> float:
    """The peer: close so many sockets, newest first, and nothing else."""
    sockets = [bound_udp() for _ in range(number)]
    with no_collector():
        started = time.perf_counter()
        for sock in reversed(sockets):
            sock.close()
        return time.perf_counter() - started


def terminate_all(manager: ProcessManager, number: int, *, with_reader: bool = False) -> float:
    """Ours: end a process that owns as many; with a thread that is blocked in one of them."""
    process = manager.create_process("sockets")
    sockets = manager.orchestrator["sockets"].manager
    owned = [sockets.bind_udp(process.pid, LOOPBACK) for _ in range(number)]
    woken = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError):
            owned[number // 2].recv(1)
        woken.set()

    reader = threading.Thread(target=read)
    if with_reader:
        reader.start()
        while _syscall_of(reader) != "blocked":
            time.sleep(0.0005)
    with no_collector():
        started = time.perf_counter()
        result = manager.terminate_process(process.pid)
        took = time.perf_counter() - started
    if with_reader:
        reader.join(5)
        assert woken.is_set(), "the reader was not woken"
    assert result.stats.resources_freed == number, result
    assert all(sock.fileno() == -1 for sock in owned)
    return took


def _syscall_of(thread: threading.Thread) -> str:
    """Whether the kernel has a thread sleeping, as it has in recv (proc(5))."""
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2]
    return "blocked" if stat.split()[0] == "S" else "running"


def sockets(manager: ProcessManager) -> list[Row]:
    """A process with sockets alone."""
    rows = [
        compare(
            f"terminate, {number} UDP sockets",
            lambda number=number: terminate_all(manager, number),  # type: ignore[misc]
            "bare loop of close()",
            lambda number=number: close_all(number),  # type: ignore[misc]
            target=target,
            warm_up=LONG_WARM_UP,
        )
        for number, target in ((100, 1.10), (10, 1.25))
    ]
    rows.append(
        compare(
            "the same 100, a thread blocked in one",
            lambda: terminate_all(manager, 100, with_reader=True),
            "bare loop of close()",
            lambda: close_all(100),
            target=1.10,
            warm_up=LONG_WARM_UP,
        )
    )
    return rows


# -- a mixture -----------------------------------------------------------------


class Mixture:
    """The same hundred things, whoever is to give them back."""

    def __init__(self, folder: Path) -> None:
        self.sockets = [bound_udp() for _ in range(SOCKETS)]
        self.maps = [mmap.mmap(-1, MAP_BYTES) for _ in range(MAPS)]
        self.tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(TASKS)]
        self.signums = range(signal.SIGRTMIN, signal.SIGRTMIN + HANDLERS)
        self.files = [(folder / str(number)).open("w") for number in range(FILES)]
        for file in self.files:
            file.write("unwritten")


def _ignore(signum: int, frame: object) -> None:
    """A handler."""


async def by_hand(folder: Path) -> float:
    """The peer: what one would write oneself, in the same order."""
    things = Mixture(folder)
    before = {signum: signal.signal(signum, _ignore) for signum in things.signums}
    await asyncio.sleep(0)
    with no_collector():
        started = time.perf_counter()
        for task in reversed(things.tasks):
            task.cancel()
        await asyncio.gather(*things.tasks, return_exceptions=True)
        for each in reversed(things.maps):
            each.close()
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for sock in reversed(things.sockets):
            sock.close()
        for file in reversed(things.files):
            file.close()
        return time.perf_counter() - started


async def by_exit_stack(folder: Path) -> float:
    """The other peer: the standard library's stack of callbacks."""
    things = Mixture(folder)
    async with AsyncExitStack() as outer:
        stack = AsyncExitStack()
        for file in things.files:
            stack.callback(file.close)
        for sock in things.sockets:
            stack.callback(sock.close)
        for signum in things.signums:
            stack.callback(signal.signal, signum, signal.signal(signum, _ignore))
        for each in things.maps:
            stack.callback(each.close)
        for task in things.tasks:
            stack.push_async_callback(_cancelled, task)
        outer.push_async_exit(stack)
        await asyncio.sleep(0)
        with no_collector():
            started = time.perf_counter()
            await outer.aclose()
            return time.perf_counter() - started


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def by_probate(folder: Path, manager: ProcessManager) -> float:
    """Ours: one process owns them all."""
    process = manager.create_process("mixture")
    kinds, pid = manager.orchestrator, process.pid
    for number in range(FILES):
        kinds["files"].manager.open(pid, folder / str(number), "w").write("unwritten")
    for _ in range(SOCKETS):
        kinds["sockets"].manager.bind_udp(pid, LOOPBACK)
    for signum in range(signal.SIGRTMIN, signal.SIGRTMIN + HANDLERS):
        kinds["signals"].manager.register(pid, signum, _ignore)
    for _ in range(MAPS):
        kinds["mmap"].manager.map_anonymous(pid, MAP_BYTES)
    for _ in range(TASKS):
        kinds["tasks"].manager.spawn(pid, asyncio.sleep(3600))
    await asyncio.sleep(0)
    with no_collector():
        started = time.perf_counter()
        result = await manager.terminate_process_async(pid)
        took = time.perf_counter() - started
    assert result.is_success, result.errors
    assert result.stats.resources_freed == SOCKETS + MAPS + TASKS + HANDLERS + FILES, result
    return took


def mixture(manager: ProcessManager) -> list[Row]:
    """A hundred things of five kinds."""
    what = f"terminate, {SOCKETS + MAPS + TASKS + HANDLERS + FILES} resources of five kinds"
    with tempfile.TemporaryDirectory() as name, asyncio.Runner() as runner:
        folder = Path(name)
        run = runner.run
        return [
            compare(
                what,
                lambda: run(by_probate(folder, manager)),
                peer,
                lambda theirs=theirs: run(theirs(folder)),  # type: ignore[misc]
                target=target,
                warm_up=LONG_WARM_UP,
            )
            for peer, theirs, target in (
                ("written by hand", by_hand, 1.10),
                ("AsyncExitStack", by_exit_stack, 1.0),
            )
        ]


def rows() -> list[Row]:
    """All rows of this module."""
    with ProcessManager.builder().build() as manager:
        return [*sockets(manager), *mixture(manager)]
