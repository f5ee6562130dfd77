"""Objects of libraries that many programs hold."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from adoption.case import Trial, case
from adoption.witness import answers, end_of_file, holds, number, process, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from adoption.place import Place


LIBRARIES: Final = "Libraries"
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
