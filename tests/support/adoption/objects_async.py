"""What runs in an event loop, but was not made by it; anyio's and trio's objects."""

from __future__ import annotations

import asyncio
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from adoption.case import Trial, case
from adoption.objects_loops import ASYNCIO
from adoption.place import Place
from adoption.witness import answers, end_of_file, holds, number, process, works

if TYPE_CHECKING:
    from collections.abc import Callable

ANYIO: Final = "anyio"
TRIO: Final = "trio"
LOOPBACK: Final = ("127.0.0.1", 0)


@case(ASYNCIO, "`asyncio.timeout`")
def timeout(place: Place) -> Trial:
    return Trial(place.loop.call(lambda: asyncio.timeout(1000)))


@case(ASYNCIO, "coroutine that nobody awaits yet")
def coroutine(place: Place) -> Trial:
    made: Any = asyncio.sleep(1000)
    place.callback(made.close)
    return Trial(
        made,
        (holds(lambda: made.cr_frame is not None, "closed"),),
        release=made.close,
        say="coroutine.close; or adopt a task of it",
    )


@case(ASYNCIO, "asynchronous generator")
def generator(place: Place) -> Trial:
    over: list[str] = []

    async def count() -> Any:
        try:
            while True:
                yield 1
        finally:
            over.append("over")

    made = count()
    place.loop.run(anext(made))
    return Trial(
        made,
        (holds(lambda: not over, "its `finally` has run"),),
        release=made.aclose,
        say="generator.aclose",
        there=place.loop.call,
    )


@case(ASYNCIO, "`asyncio.Queue`")
def queue(_: Place) -> Trial:
    return Trial(asyncio.Queue())


@case(ASYNCIO, "`asyncio.Lock`")
def lock(_: Place) -> Trial:
    return Trial(asyncio.Lock())


@case(ASYNCIO, "protocol, without its transport")
def protocol(_: Place) -> Trial:
    return Trial(asyncio.Protocol())


@case(ASYNCIO, "`asyncio.Event`")
def event(_: Place) -> Trial:
    return Trial(asyncio.Event())


# -- anyio and trio ----------------------------------------------------------------


async def _connect(place: Place) -> tuple[Any, socket.socket]:
    import anyio

    listener = place.enter_context(socket.create_server(LOOPBACK))
    stream = await anyio.connect_tcp(*listener.getsockname())
    return stream, place.enter_context(listener.accept()[0])


@case(ANYIO, "TCP stream", library="anyio")
def anyio_stream(place: Place) -> Trial:
    stream, peer = place.loop.run(_connect(place))
    place.finally_(lambda: place.loop.run(stream.aclose()))
    return Trial(stream, (end_of_file(peer),), there=place.loop.call)


@case(ANYIO, "TCP listener", library="anyio")
def anyio_listener(place: Place) -> Trial:
    import anyio

    listener = place.loop.run(anyio.create_tcp_listener(local_host="127.0.0.1"))
    place.finally_(lambda: place.loop.run(listener.aclose()))
    address = listener.extra(anyio.abc.SocketAttribute.local_address)
    return Trial(listener, (answers(address),), there=place.loop.call)


@case(ANYIO, "file of `anyio.open_file`", library="anyio")
def anyio_file(place: Place) -> Trial:
    import anyio

    file = place.loop.run(anyio.open_file(place.file(), "rb"))
    place.finally_(file.wrapped.close)
    return Trial(
        file,
        (number(file.wrapped.fileno()),),
        release=file.aclose,
        say="file.aclose; or adopt its `wrapped`",
        there=place.loop.call,
    )


@case(ANYIO, "process of `anyio.open_process`", library="anyio")
def anyio_process(place: Place) -> Trial:
    import anyio

    child = place.loop.run(anyio.open_process(["sleep", "1000"]))

    async def end(child: Any) -> None:
        child.kill()
        await child.wait()
        await child.aclose()

    place.finally_(lambda: place.loop.run(end(child)))
    return Trial(
        child,
        (process(child.pid),),
        release=end,
        say="end, a coroutine function that kills it, and waits; or adopt a `psutil.Process`",
        there=place.loop.call,
    )


@case(ANYIO, "memory object stream", library="anyio")
def anyio_memory_stream(place: Place) -> Trial:
    import anyio

    sending, receiving = anyio.create_memory_object_stream[int](1)
    place.callback(receiving.close)
    place.callback(sending.close)

    def send() -> None:
        sending.send_nowait(1)
        receiving.receive_nowait()

    return Trial(
        sending,
        (works(send, "closed"),),
        release=sending.close,
        say="stream.close",
    )


@case(ANYIO, "task group, entered", library="anyio")
def anyio_group(place: Place) -> Trial:
    import anyio

    groups: list[Any] = []

    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            groups.append(group)

    task = place.loop.call(lambda: place.loop.loop.create_task(run()))
    place.loop.call(lambda: None)

    async def stop(group: Any) -> None:
        group.cancel_scope.cancel()
        await asyncio.wait([task])

    place.finally_(place.loop.call, task.cancel)
    return Trial(
        groups[0],
        (holds(lambda: not task.done(), "cancelled"),),
        release=stop,
        say="stop, a coroutine function that cancels its scope; or adopt the task that is in it",
        there=place.loop.call,
    )


@case(ANYIO, "`CancelScope`", library="anyio")
def anyio_scope(place: Place) -> Trial:
    import anyio

    async def make() -> Any:
        return anyio.CancelScope()

    scope = place.loop.run(make())

    async def stop(scope: Any) -> None:
        scope.cancel()

    return Trial(
        scope,
        (holds(lambda: not scope.cancel_called, "cancelled"),),
        release=stop,
        say="stop, a coroutine function that calls `cancel`",
        there=place.loop.call,
    )


@case(ANYIO, "portal of `start_blocking_portal`", library="anyio")
def anyio_portal(place: Place) -> Trial:
    import anyio.from_thread

    portal = place.enter_context(anyio.from_thread.start_blocking_portal())

    def stop(portal: Any) -> None:
        portal.call(portal.stop, True)

    return Trial(
        portal,
        (works(lambda: portal.call(str), "stopped"),),
        release=stop,
        say="stop, a function that calls `portal.stop` in it",
    )


# -- trio -------------------------------------------------------------------------


class TrioThread:
    """A trio program that runs on a thread of its own until it is told to stop."""

    def __init__(self) -> None:
        self._trio = Place.library("trio")
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._trio.run, args=(self._main,))

    async def _main(self) -> None:
        self._token = self._trio.lowlevel.current_trio_token()
        self._stop = self._trio.Event()
        self._ready.set()
        await self._stop.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._stop.set)
        self._thread.join(10)

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function there."""
        return self._trio.from_thread.run_sync(function, trio_token=self._token)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a coroutine function there."""
        return self._trio.from_thread.run(function, *arguments, trio_token=self._token)


@case(TRIO, "TCP stream", library="trio")
def trio_stream(place: Place) -> Trial:
    trio = place.library("trio")
    runner = place.enter_context(TrioThread())
    listener = place.enter_context(socket.create_server(LOOPBACK))
    stream = runner.run(trio.open_tcp_stream, *listener.getsockname())
    peer = place.enter_context(listener.accept()[0])
    place.finally_(runner.run, stream.aclose)
    return Trial(stream, (number(stream.socket.fileno()), end_of_file(peer)), there=runner.call)


@case(TRIO, "TCP listener", library="trio")
def trio_listener(place: Place) -> Trial:
    trio = place.library("trio")
    runner = place.enter_context(TrioThread())
    listener, *_ = runner.run(partial(trio.open_tcp_listeners, 0, host="127.0.0.1"))
    place.finally_(runner.run, listener.aclose)
    sock = listener.socket
    witnesses = (number(sock.fileno()), answers(sock.getsockname()))
    return Trial(listener, witnesses, there=runner.call)


@case(TRIO, "socket", library="trio")
def trio_socket(place: Place) -> Trial:
    trio = place.library("trio")
    runner = place.enter_context(TrioThread())
    ours, peer = map(place.enter_context, socket.socketpair())
    made = runner.call(lambda: trio.socket.from_stdlib_socket(ours))
    return Trial(made, (number(made.fileno()), end_of_file(peer)), there=runner.call)


@case(TRIO, "process", library="trio")
def trio_process(place: Place) -> Trial:
    trio = place.library("trio")
    runner = place.enter_context(TrioThread())
    child = runner.run(trio.lowlevel.open_process, ["sleep", "1000"])

    def end() -> None:
        child.kill()
        runner.run(child.wait)

    place.finally_(end)
    return Trial(
        child,
        (process(child.pid),),
        release=lambda _: end(),
        say="a function that kills it, and waits; or adopt a `psutil.Process`",
        there=runner.call,
    )


@case(TRIO, "`CancelScope`", library="trio")
def trio_scope(place: Place) -> Trial:
    trio = place.library("trio")
    runner = place.enter_context(TrioThread())
    scope = runner.call(trio.CancelScope)
    return Trial(
        scope,
        (holds(lambda: not runner.call(lambda: scope.cancel_called), "cancelled"),),
        release=lambda scope: runner.call(scope.cancel),
        say="a function that calls `cancel` in trio's thread",
        there=runner.call,
    )
