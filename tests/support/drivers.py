"""How to make, adopt, release and break a resource of each kind: for tests over all kinds."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import signal
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from probate import ResourceOrchestrator

LOOPBACK = ("127.0.0.1", 0)


class LoopThread:
    """An event loop that runs in a thread of its own."""

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        # A daemon: a test that fails before it is stopped must not keep pytest from exiting.
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def call(self, function: Callable[[], Any]) -> Any:
        """Call `function` on the loop's thread and return what it returns."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)


@dataclass(frozen=True)
class Driver:
    """One way to come by a resource of a kind."""

    kind: str
    #: Makes it for a pid, and returns the native thing.
    make: Callable[[int], Any]
    #: Gives it back through its manager.
    give_back: Callable[[int, Any], object]
    #: Closes the native thing behind its manager's back, if that can be done.
    close: Callable[[Any], object] | None = None


def drivers(orchestrator: ResourceOrchestrator, loop: LoopThread) -> dict[str, Driver]:
    """Drivers by name: one that acquires for each kind, and one that adopts where possible."""
    sockets = orchestrator["sockets"].manager
    signals = orchestrator["signals"].manager
    maps = orchestrator["mmap"].manager
    tasks = orchestrator["tasks"].manager
    rings = orchestrator["rings"].zerocopy

    def adopting(make: Callable[[], Any]) -> Callable[[int], Any]:
        def make_and_adopt(pid: int) -> Any:
            native = make()
            try:
                orchestrator.adopt(pid, native)
            except BaseException:
                native.close()
                raise
            return native

        return make_and_adopt

    def spawn(pid: int) -> Any:
        return loop.call(lambda: tasks.spawn(pid, asyncio.Event().wait()))

    def adopt_task(pid: int) -> Any:
        def on_loop() -> Any:
            task = loop.loop.create_task(asyncio.Event().wait())
            try:
                orchestrator.adopt(pid, task)
            except BaseException:
                task.cancel()
                raise
            return task

        return loop.call(on_loop)

    def cancel(pid: int, task: asyncio.Task[Any]) -> None:
        tasks.cancel(pid, task)

        async def ended() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await task

        asyncio.run_coroutine_threadsafe(ended(), loop.loop).result(10)

    def register(pid: int) -> Any:
        def handler(_signum: int, _frame: object) -> None:
            """Do nothing."""

        signals.register(pid, signal.SIGUSR1, handler)
        return handler

    return {
        "udp": Driver(
            "sockets",
            lambda pid: sockets.bind_udp(pid, LOOPBACK),
            sockets.close,
            socket.socket.close,
        ),
        "listener": Driver(
            "sockets",
            lambda pid: sockets.listen_tcp(pid, LOOPBACK),
            sockets.close,
            socket.socket.close,
        ),
        "adopted socket": Driver(
            "sockets", adopting(socket.socket), sockets.close, socket.socket.close
        ),
        "map": Driver(
            "mmap", lambda pid: maps.map_anonymous(pid, mmap.PAGESIZE), maps.unmap, mmap.mmap.close
        ),
        "adopted map": Driver(
            "mmap", adopting(lambda: mmap.mmap(-1, mmap.PAGESIZE)), maps.unmap, mmap.mmap.close
        ),
        "task": Driver("tasks", spawn, cancel),
        "adopted task": Driver("tasks", adopt_task, cancel),
        "handler": Driver(
            "signals",
            register,
            lambda pid, handler: signals.unregister(pid, signal.SIGUSR1, handler),
        ),
        "ring": Driver(
            "rings", lambda pid: rings.create_ring(pid, slots=4, block_size=256), rings.close
        ),
    }
