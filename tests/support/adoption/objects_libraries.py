"""Objects of libraries that many programs hold."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from adoption.case import Trial, case
from adoption.place import Place
from adoption.witness import answers, end_of_file, holds, number, process, runs, works

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


LIBRARIES: Final = "Libraries"
ANYIO: Final = "anyio"
TRIO: Final = "trio"
LOOPBACK: Final = ("127.0.0.1", 0)


@case(LIBRARIES, "`filelock.FileLock`, held", library="filelock")
def filelock_lock(place: Place) -> Trial:
    filelock = place.library("filelock")
    return _lock(place, filelock.FileLock(place.folder / "lock"))


@case(LIBRARIES, "`filelock.SoftFileLock`, held", library="filelock")
def soft_lock(place: Place) -> Trial:
    filelock = place.library("filelock")
    return _lock(place, filelock.SoftFileLock(place.folder / "lock"))


def _lock(place: Place, lock: Any) -> Trial:
    lock.acquire()
    place.finally_(lock.release, True)
    return Trial(lock, (holds(lambda: lock.is_locked, "released"),))


@case(LIBRARIES, "`portalocker.Lock`, held", library="portalocker")
def portalocker_lock(place: Place) -> Trial:
    portalocker = place.library("portalocker")
    lock = portalocker.Lock(str(place.folder / "lock"))
    file = lock.acquire()
    place.finally_(lock.release)
    return Trial(lock, (number(file.fileno(), "released, and its file closed"),))


@case(LIBRARIES, "`fasteners.InterProcessLock`, held", library="fasteners")
def fasteners_lock(place: Place) -> Trial:
    fasteners = place.library("fasteners")
    lock = fasteners.InterProcessLock(place.folder / "lock")
    lock.acquire()
    place.finally_(lock.release)
    return Trial(lock, (holds(lambda: lock.acquired, "released"),))


@case(LIBRARIES, "`h5py.File`", library="h5py")
def h5py_file(place: Place) -> Trial:
    h5py = place.library("h5py")
    file = h5py.File(place.folder / "data.h5", "w")
    place.finally_(file.close)
    file["set"] = [1, 2]
    return Trial(file, (holds(lambda: bool(file), "written and closed by its library"),))


@case(LIBRARIES, "`h5py.Dataset`", library="h5py")
def h5py_dataset(place: Place) -> Trial:
    h5py = place.library("h5py")
    file = h5py.File(place.folder / "data.h5", "w")
    place.finally_(file.close)
    file["set"] = [1, 2]
    return Trial(
        file["set"],
        (holds(lambda: bool(file), "closed with its file"),),
        release=lambda dataset: dataset.file.close(),
        say="a function that closes its file; or adopt the file",
    )


@case(LIBRARIES, "`aiohttp.ClientSession`", library="aiohttp")
def aiohttp_session(place: Place) -> Trial:
    aiohttp = place.library("aiohttp")
    session = place.loop.call(aiohttp.ClientSession)

    async def close() -> None:
        await session.close()

    place.finally_(lambda: place.loop.run(close()))
    return Trial(
        session,
        (holds(lambda: not session.closed, "closed"),),
        release=session.close,
        say="session.close",
        there=place.loop.call,
    )


@case(LIBRARIES, "`aiohttp.web.AppRunner`", library="aiohttp")
def aiohttp_runner(place: Place) -> Trial:
    web = place.library("aiohttp.web")
    runner = web.AppRunner(web.Application())

    async def serve() -> Any:
        await runner.setup()
        await web.TCPSite(runner, *LOOPBACK).start()
        return runner.addresses[0]

    address = place.loop.run(serve())
    place.finally_(lambda: place.loop.run(runner.cleanup()))
    return Trial(
        runner,
        (answers(address),),
        release=runner.cleanup,
        say="runner.cleanup",
        there=place.loop.call,
    )


@contextlib.contextmanager
def _http() -> Iterator[str]:
    """A server that answers each request, and keeps the connection."""
    listener = socket.create_server(LOOPBACK)
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(4096):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        over.set()

    threading.Thread(target=serve, daemon=True).start()
    host, port = listener.getsockname()
    with listener:
        yield f"http://{host}:{port}/"
        over.wait(10)


def _sockets() -> set[int]:
    from probate.testing.witness import KernelView

    return {fd for fd, name in KernelView.take().fds.items() if name.startswith("socket:")}


@case(LIBRARIES, "`httpx.Client`, with a connection", library="httpx")
def httpx_client(place: Place) -> Trial:
    httpx = place.library("httpx")
    url = place.enter_context(_http())
    client = httpx.Client()
    place.callback(client.close)
    connection = _kept(lambda: client.get(url), url)
    return Trial(client, (number(connection),), release=client.close, say="client.close")


@case(LIBRARIES, "`httpx.AsyncClient`, with a connection", library="httpx")
def httpx_async_client(place: Place) -> Trial:
    httpx = place.library("httpx")
    loop, url = place.loop, place.enter_context(_http())
    client = httpx.AsyncClient()
    place.finally_(lambda: loop.run(client.aclose()))
    connection = _kept(lambda: loop.run(client.get(url)), url)
    return Trial(
        client,
        (number(connection),),
        release=client.aclose,
        say="client.aclose",
        there=place.loop.call,
    )


@case(LIBRARIES, "`requests.Session`, with a connection", library="requests")
def requests_session(place: Place) -> Trial:
    requests = place.library("requests")
    url = place.enter_context(_http())
    session = requests.Session()
    place.callback(session.close)
    connection = _kept(lambda: session.get(url, timeout=10), url)
    return Trial(session, (number(connection),), release=session.close, say="session.close")


def _kept(request: Callable[[], Any], url: str) -> int:
    """The number of the connection to there that is kept by who has made this request."""
    assert request().status_code == 200
    port = int(url.rstrip("/").rpartition(":")[2])
    [fd] = [fd for fd in _sockets() if _peer_port(fd) == port]
    return fd


def _peer_port(fd: int) -> object:
    sock = socket.socket(fileno=fd)
    try:
        return sock.getpeername()[1]
    except (OSError, IndexError):
        return None
    finally:
        sock.detach()


@case(LIBRARIES, "`grpc` channel", library="grpc")
def grpc_channel(place: Place) -> Trial:
    grpc = place.library("grpc")
    channel = grpc.insecure_channel("127.0.0.1:1")
    place.finally_(channel.close)
    call = channel.unary_unary("/service/method")

    def is_open() -> bool:
        try:
            call(b"", timeout=0.2)
        except grpc.RpcError:
            return True
        except ValueError:
            return False
        return True

    return Trial(channel, (holds(is_open, "closed"),), release=channel.close, say="channel.close")


@case(LIBRARIES, "`grpc` server", library="grpc")
def grpc_server(place: Place) -> Trial:
    grpc = place.library("grpc")
    executor = place.enter_context(concurrent.futures.ThreadPoolExecutor(1))
    server = grpc.server(executor)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    place.finally_(server.stop, None)
    return Trial(
        server,
        (answers(("127.0.0.1", port)),),
        release=lambda server: server.stop(None).wait(10),
        say="a function that calls `stop`, and waits",
    )


@case(LIBRARIES, "`redis.Redis`, connected", library="redis")
def redis_client(place: Place) -> Trial:
    redis = place.library("redis")
    listener = place.enter_context(socket.create_server(LOOPBACK))
    host, port = listener.getsockname()
    client = redis.Redis(host, port, protocol=2, socket_timeout=10)
    place.callback(client.close)
    peers: list[socket.socket] = []

    def serve() -> None:
        peer, _ = listener.accept()
        peers.append(peer)
        said = b""
        while b"PING" not in said:
            said = peer.recv(4096)
            for command in said.split(b"*")[1:]:
                peer.sendall(b"+PONG\r\n" if b"PING" in command else b"+OK\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    assert client.ping()
    thread.join(10)
    place.enter_context(peers[0])
    return Trial(client, (end_of_file(peers[0]),), release=client.close, say="client.close")


@case(LIBRARIES, "`sqlalchemy` engine", library="sqlalchemy")
def engine(place: Place) -> Trial:
    sqlalchemy = place.library("sqlalchemy")
    made = _engine(place)
    with made.connect() as connection:
        connection.execute(sqlalchemy.text("select 1"))
    return Trial(
        made,
        (holds(lambda: made.pool.checkedin() == 1, "disposed of, with its pool"),),
        release=made.dispose,
        say="engine.dispose",
    )


@case(LIBRARIES, "`sqlalchemy` connection", library="sqlalchemy")
def engine_connection(place: Place) -> Trial:
    made = place.enter_context(_engine(place).connect())
    return Trial(
        made,
        (holds(lambda: not made.closed, "given back to its pool"),),
        release=made.close,
        say="connection.close",
    )


@case(LIBRARIES, "`sqlalchemy.orm.Session`", library="sqlalchemy")
def orm_session(place: Place) -> Trial:
    sqlalchemy = place.library("sqlalchemy")
    engine = _engine(place)
    made = place.enter_context(place.library("sqlalchemy.orm").Session(engine))
    made.execute(sqlalchemy.text("select 1"))
    return Trial(
        made,
        (holds(lambda: engine.pool.checkedout() == 1, "its connection given back"),),
        release=made.close,
        say="session.close",
    )


def _engine(place: Place) -> Any:
    sqlalchemy = place.library("sqlalchemy")
    url = f"sqlite:///{place.folder / 'data'}"
    made = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.QueuePool)
    place.callback(made.dispose)
    return made


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


# -- what is not among the test's own dependencies ---------------------------------


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


@case(LIBRARIES, "`zmq.Context`", library="zmq")
def zmq_context(place: Place) -> Trial:
    zmq = place.library("zmq")
    made = zmq.Context()
    place.finally_(made.destroy)
    return Trial(
        made,
        (holds(lambda: not made.closed, "closed"),),
        release=made.destroy,
        say="context.destroy",
    )


@case(LIBRARIES, "`zmq.Socket`", library="zmq")
def zmq_socket(place: Place) -> Trial:
    zmq = place.library("zmq")
    context = zmq.Context()
    place.finally_(context.destroy)
    made = context.socket(zmq.PULL)
    return Trial(
        made, (holds(lambda: not made.closed, "closed"),), release=made.close, say="socket.close"
    )


@case(LIBRARIES, "`watchdog` observer, started", library="watchdog")
def watchdog_observer(place: Place) -> Trial:
    made = place.library("watchdog.observers").Observer()
    made.start()

    def end(observer: Any) -> None:
        observer.stop()
        observer.join(10)

    place.finally_(end, made)
    return Trial(
        made,
        (runs(made, "stopped"),),
        release=end,
        say="end, a function that calls `stop` and `join`",
    )


@case(LIBRARIES, "`loky` executor", library="loky")
def loky_executor(place: Place) -> Trial:
    loky = place.library("loky")
    made = loky.ProcessPoolExecutor(1)
    place.finally_(made.shutdown)
    pid = made.submit(os.getpid).result(30)
    return Trial(made, (process(pid, "shut down; its processes gone"),))
