"""What event loops make: of asyncio, and of uvloop."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from certificates import contexts

from adoption.case import Trial, case
from adoption.witness import answers, end_of_file, future, holds, number, path, process

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks_loops import LoopThread

    from adoption.place import Place

LOOPBACK: Final = ("127.0.0.1", 0)
ASYNCIO: Final = "asyncio"
UVLOOP: Final = "uvloop"


async def _served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.read()
    finally:
        writer.close()


def _server(place: Place, loop: LoopThread) -> Trial:
    server = loop.run(asyncio.start_server(_served, *LOOPBACK))
    place.finally_(loop.call, server.close)
    [listener] = server.sockets
    client = place.enter_context(socket.create_connection(listener.getsockname()))
    return Trial(
        server,
        (number(listener.fileno()), answers(listener.getsockname()), end_of_file(client)),
        there=loop.call,
    )


@case(ASYNCIO, "server of `asyncio.start_server`, with a connection")
def server(place: Place) -> Trial:
    return _server(place, place.loop)


@case(UVLOOP, "server, with a connection", library="uvloop")
def uvloop_server(place: Place) -> Trial:
    return _server(place, place.uvloop)


@case(ASYNCIO, "server of `asyncio.start_unix_server`")
def unix_server(place: Place) -> Trial:
    name = str(place.folder / "socket")
    made = place.loop.run(asyncio.start_unix_server(_served, name))
    place.finally_(place.loop.call, made.close)
    return Trial(made, (number(made.sockets[0].fileno()), path(name)))


def _connected(place: Place, loop: LoopThread) -> tuple[Any, Any, socket.socket]:
    ours, peer = map(place.enter_context, socket.socketpair())
    ours.setblocking(False)
    reader, writer = loop.run(asyncio.open_connection(sock=ours))
    place.finally_(loop.call, writer.close)
    return reader, writer, peer


def _transport(place: Place, loop: LoopThread) -> Trial:
    _, writer, peer = _connected(place, loop)
    fd = writer.get_extra_info("socket").fileno()
    return Trial(writer.transport, (number(fd), end_of_file(peer)), there=loop.call)


@case(ASYNCIO, "transport of a stream")
def transport(place: Place) -> Trial:
    return _transport(place, place.loop)


@case(UVLOOP, "transport of a stream", library="uvloop")
def uvloop_transport(place: Place) -> Trial:
    return _transport(place, place.uvloop)


@case(ASYNCIO, "`StreamWriter`")
def writer(place: Place) -> Trial:
    _, made, peer = _connected(place, place.loop)
    return Trial(made, (number(made.get_extra_info("socket").fileno()), end_of_file(peer)))


@case(ASYNCIO, "`StreamReader`")
def reader(place: Place) -> Trial:
    made, writer, peer = _connected(place, place.loop)
    loop = place.loop

    async def close(_: object) -> None:
        writer.close()
        await writer.wait_closed()

    return Trial(
        made,
        (number(writer.get_extra_info("socket").fileno()), end_of_file(peer)),
        release=close,
        say="close, a coroutine function that closes its writer; or adopt the writer",
        there=loop.call,
    )


@case(ASYNCIO, "transport of TLS")
def tls_transport(place: Place) -> Trial:
    for_server, for_client = contexts()
    server = place.loop.run(asyncio.start_server(_served, *LOOPBACK, ssl=for_server))
    place.finally_(place.loop.call, server.close)
    address = server.sockets[0].getsockname()
    _, writer = place.loop.run(asyncio.open_connection(*address, ssl=for_client))
    place.finally_(place.loop.call, writer.close)
    return Trial(writer.transport, (number(writer.get_extra_info("socket").fileno()),))


def _datagram(place: Place, loop: LoopThread) -> Trial:
    made, _ = loop.run(
        loop.loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=LOOPBACK)
    )
    place.finally_(loop.call, made.close)
    return Trial(made, (number(made.get_extra_info("socket").fileno()),), there=loop.call)


@case(ASYNCIO, "transport of datagrams")
def datagram(place: Place) -> Trial:
    return _datagram(place, place.loop)


@case(UVLOOP, "transport of datagrams", library="uvloop")
def uvloop_datagram(place: Place) -> Trial:
    return _datagram(place, place.uvloop)


def _pipe(place: Place, loop: LoopThread, *, reads: bool) -> Trial:
    reading, writing = os.pipe()
    ours, other = (reading, writing) if reads else (writing, reading)
    place.finally_(os.close, other)
    file = os.fdopen(ours, "rb" if reads else "wb", 0)
    place.finally_(file.close)
    connect = loop.loop.connect_read_pipe if reads else loop.loop.connect_write_pipe
    made, _ = loop.run(connect(asyncio.Protocol if reads else asyncio.BaseProtocol, file))
    place.finally_(loop.call, made.close)
    return Trial(made, (number(ours),), there=loop.call)


@case(ASYNCIO, "transport that reads a pipe")
def read_pipe(place: Place) -> Trial:
    return _pipe(place, place.loop, reads=True)


@case(ASYNCIO, "transport that writes to a pipe")
def write_pipe(place: Place) -> Trial:
    return _pipe(place, place.loop, reads=False)


@case(UVLOOP, "transport that reads a pipe", library="uvloop")
def uvloop_read_pipe(place: Place) -> Trial:
    return _pipe(place, place.uvloop, reads=True)


def _closed_transport(place: Place) -> Any:
    _, made, _ = _connected(place, place.loop)
    place.loop.call(made.close)
    place.loop.run(made.wait_closed())
    return made


@case(ASYNCIO, "`StreamWriter` that is closed")
def closed_writer(place: Place) -> Trial:
    return Trial(_closed_transport(place))


def _subprocess(place: Place, loop: LoopThread) -> Any:
    async def start() -> Any:
        return await asyncio.create_subprocess_exec("sleep", "1000", stdin=asyncio.subprocess.PIPE)

    made = loop.run(start())

    async def end() -> None:
        made.kill()
        await made.wait()

    place.finally_(lambda: loop.run(end()))
    return made


@case(ASYNCIO, "`asyncio.subprocess.Process`")
def child(place: Place) -> Trial:
    made = _subprocess(place, place.loop)
    return Trial(made, (process(made.pid),))


@case(UVLOOP, "`asyncio.subprocess.Process`", library="uvloop")
def uvloop_child(place: Place) -> Trial:
    made = _subprocess(place, place.uvloop)
    return Trial(made, (process(made.pid),), there=place.uvloop.call)


@case(ASYNCIO, "transport of a subprocess")
def child_transport(place: Place) -> Trial:
    made = _subprocess(place, place.loop)

    async def close(transport: Any) -> None:
        transport.close()
        await made.wait()

    return Trial(
        made._transport,
        (process(made.pid),),
        release=close,
        say="close, a coroutine function; or adopt the `Process`",
        there=place.loop.call,
    )


async def _forever() -> None:
    await asyncio.Event().wait()


def _task(place: Place, loop: LoopThread) -> Trial:
    made = loop.call(lambda: loop.loop.create_task(_forever()))
    place.finally_(loop.call, made.cancel)
    return Trial(made, (future(made),), there=loop.call)


@case(ASYNCIO, "task")
def task(place: Place) -> Trial:
    return _task(place, place.loop)


@case(UVLOOP, "task", library="uvloop")
def uvloop_task(place: Place) -> Trial:
    return _task(place, place.uvloop)


@case(ASYNCIO, "future")
def plain_future(place: Place) -> Trial:
    made = place.loop.call(place.loop.loop.create_future)
    place.finally_(place.loop.call, made.cancel)
    return Trial(made, (future(made),))


@case(ASYNCIO, "`asyncio.gather`")
def gather(place: Place) -> Trial:
    async def start() -> list[Any]:
        made: Any = asyncio.gather(_forever(), _forever())
        return [made, *made._children]

    made, *children = place.loop.run(start())
    # Who waits for nothing of it retrieves nothing either, which asyncio complains of.
    place.finally_(lambda: made.exception())
    place.finally_(place.loop.call, made.cancel)
    return Trial(made, (holds(lambda: not made.done(), "cancelled"), *map(future, children)))


@case(ASYNCIO, "future of `run_coroutine_threadsafe`")
def threadsafe(place: Place) -> Trial:
    started: list[Any] = []

    async def run() -> None:
        started.append(asyncio.current_task())
        await _forever()

    made = asyncio.run_coroutine_threadsafe(run(), place.loop.loop)
    place.loop.call(lambda: None)
    place.finally_(made.cancel)
    return Trial(made, (future(made), future(started[0])))


@case(ASYNCIO, "task that is done")
def done_task(place: Place) -> Trial:
    async def nothing() -> None:
        """Be over at once."""

    async def run() -> Any:
        made = asyncio.create_task(nothing())
        await made
        return made

    return Trial(place.loop.run(run()))


def _timer(place: Place, loop: LoopThread) -> Trial:
    made = loop.call(lambda: loop.loop.call_later(1000, print))
    place.finally_(loop.call, made.cancel)
    return Trial(made, (holds(lambda: not made.cancelled(), "cancelled"),), there=loop.call)


@case(ASYNCIO, "`TimerHandle` of `call_later`")
def timer(place: Place) -> Trial:
    return _timer(place, place.loop)


@case(UVLOOP, "handle of `call_later`", library="uvloop")
def uvloop_timer(place: Place) -> Trial:
    return _timer(place, place.uvloop)


def _loop(place: Place, make: Callable[[], asyncio.AbstractEventLoop]) -> Trial:
    made = make()
    place.finally_(made.close)
    return Trial(
        made,
        (holds(lambda: not made.is_closed(), "closed"),),
        release=made.close,
        say="loop.close",
    )


@case(ASYNCIO, "event loop")
def loop(place: Place) -> Trial:
    return _loop(place, asyncio.new_event_loop)


@case(UVLOOP, "event loop", library="uvloop")
def uvloop_loop(place: Place) -> Trial:
    import uvloop

    return _loop(place, uvloop.new_event_loop)


@case(ASYNCIO, "`asyncio.Runner`")
def runner(place: Place) -> Trial:
    made = asyncio.Runner()
    place.finally_(made.close)
    inner = made.get_loop()
    return Trial(
        made,
        (holds(lambda: not inner.is_closed(), "its loop closed"),),
        release=made.close,
        say="runner.close",
    )


@case(ASYNCIO, "`asyncio.TaskGroup`")
def task_group(place: Place) -> Trial:
    group = asyncio.TaskGroup()
    started: list[Any] = []

    async def enter() -> None:
        async with group:
            started.append(group.create_task(_forever()))

    async def start() -> Any:
        made = asyncio.ensure_future(enter())
        await asyncio.sleep(0)
        return made

    around = place.loop.run(start())
    place.finally_(place.loop.call, around.cancel)

    async def stop(_: object) -> None:
        started[0].cancel()
        await asyncio.wait([around])

    return Trial(
        group,
        (future(started[0]),),
        release=stop,
        say="stop, a coroutine function that cancels its tasks; or adopt the task that is in it",
        there=place.loop.call,
    )
