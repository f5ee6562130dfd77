"""What a process of the demo does with each kind: real resources, in real use, left as they are.

A scene is called with the host and a process, in the order below, so that later ones can use
what earlier ones made. It gives nothing back: that is the termination's job.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, final

from probate.cli.demo.host import DemoError
from probate.cli.lack import is_lack, lack_of, limited_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from probate import Process
    from probate.cli.demo.host import Host

    Act = Callable[[Host, Process], None]

T = TypeVar("T")

LOOPBACK: Final = ("127.0.0.1", 0)
PAGE: Final = mmap.PAGESIZE


@final
class Scene(NamedTuple):
    """What a process does with a kind."""

    #: The kinds that it takes; the first is the one that is shown.
    kinds: tuple[str, ...]
    act: Act
    line: str


SCENES: Final[list[Scene]] = []


def _scene(*kinds: str, does: str) -> Callable[[Act], Act]:
    def add(act: Act) -> Act:
        SCENES.append(Scene(kinds, act, does))
        return act

    return add


def set_up(host: Host, process: Process) -> None:
    """Run all scenes whose kinds are installed, and note what the process holds then.

    A scene that lacks something of this machine is left where it came to, with a remark.
    """
    host.tell(f"{process.name!r} takes resources of every kind")
    lines: dict[str, list[str]] = {}
    for scene in SCENES:
        if host.has(*scene.kinds):
            kind = scene.kinds[0]
            try:
                scene.act(host, process)
            except Exception as error:
                if not is_lack(error):
                    raise
                host.note_lack(process.name, kind, lack_of(error))
            else:
                lines.setdefault(kind, []).append(scene.line)
    host.note_held(process, lines)


def _expect(expected: object, actual: object, what: str) -> None:
    if actual != expected:
        raise DemoError(f"{what}: expected {expected!r}, got {actual!r}")


def _adopt(process: Process, things: Iterable[T], discard: Callable[[T], object]) -> None:
    """Have the process own things that were made elsewhere; discard those that it may not own."""
    left = list(things)
    try:
        while left:
            process.adopt(left[0])
            del left[0]
    finally:
        for thing in left:
            discard(thing)


@_scene("sockets", does="TCP with traffic, a thread blocked in accept, UDP, unix, an adopted pair")
def _sockets(host: Host, process: Process) -> None:
    sockets = host.plugin("sockets").manager
    listener = sockets.listen_tcp(process.pid, LOOPBACK)
    client = sockets.connect_tcp(process.pid, listener.getsockname())
    server = sockets.accept(process.pid, listener)
    client.sendall(b"ping")
    server.sendall(server.recv(4))
    _expect(b"ping", client.recv(4), "the echo")
    # More is on its way when the end comes, and nobody will read it.
    client.sendall(b"unread" * 100)
    sockets.bind_udp(process.pid, LOOPBACK)
    with limited_path():
        sockets.listen_unix(process.pid, host.folder / f"{process.pid}.sock")

    def accept_for_ever() -> None:
        with contextlib.suppress(Exception):
            sockets.accept(process.pid, listener)

    threading.Thread(target=accept_for_ever, name=f"accept-{process.pid}").start()
    _adopt(process, socket.socketpair(), socket.socket.close)


@_scene("signals", does="handlers for two signals, one delivered, one blocked and pending")
def _signals(host: Host, process: Process) -> None:
    signals = host.plugin("signals").manager
    seen: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signals.register(process.pid, number, lambda number, _frame: seen.append(number))
    signals.block(process.pid, {signal.SIGUSR2})
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signals.send(process.pid, number)
    _expect([signal.SIGUSR1], seen, "signals delivered")
    _expect([signal.SIGUSR2], list(signals.pending(process.pid)), "signals pending")


@_scene("rings", does="a zero-copy ring with messages in flight")
def _zero_copy(host: Host, process: Process) -> None:
    ring = host.plugin("rings").zerocopy.create_ring(process.pid, slots=8, block_size=256)
    for number in range(3):
        with ring.sending() as block:
            text = f"message {number}".encode()
            block[: len(text)] = text
            ring.submit(len(text))
    with ring.receiving() as message:
        _expect(b"message 0", bytes(message), "the first message")


@_scene("rings", "sockets", does="an io_uring read that never completes")
def _io_uring(host: Host, process: Process) -> None:
    ring = host.plugin("rings").iouring.create_ring(process.pid, 8)
    quiet, other = socket.socketpair()
    _adopt(process, (quiet, other), socket.socket.close)
    ring.nop()
    ring.read(quiet.fileno(), 64)
    ring.submit()
    _expect(1, len(ring.reap(1, 5.0)), "no-ops that completed")


@_scene("tasks", does="a ticking task, one that is slow to stop, one adopted, a thread at work")
def _tasks(host: Host, process: Process) -> None:
    tasks = host.plugin("tasks").manager

    async def tick() -> None:
        while True:  # noqa: ASYNC110  it waits for nothing: it ticks
            await asyncio.sleep(0.01)

    async def stop_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)

    def start() -> None:
        tasks.spawn(process.pid, tick(), name="tick")
        tasks.spawn(process.pid, stop_slowly(), name="slow")
        process.adopt(asyncio.get_running_loop().create_task(tick(), name="adopted"))

    host.on_loop(start)


@_scene("mmap", "sockets", does="a map a blocked thread reads into")
def _exported_buffer(host: Host, process: Process) -> None:
    mapping = host.plugin("mmap").manager.map_anonymous(process.pid, PAGE)
    ours, theirs = socket.socketpair()
    _adopt(process, (ours, theirs), socket.socket.close)
    is_reading = threading.Event()

    def read_into_map() -> None:
        with memoryview(mapping) as view:
            is_reading.set()
            with contextlib.suppress(OSError):
                ours.recv_into(view)

    if host.has("tasks"):
        host.plugin("tasks").manager.submit(process.pid, read_into_map)
    else:
        threading.Thread(target=read_into_map, name=f"reader-{process.pid}").start()
    is_reading.wait(5)


@_scene("mmap", does="dirty file maps, an anonymous map, one adopted")
def _maps(host: Host, process: Process) -> None:
    maps = host.plugin("mmap").manager
    for number in range(2):
        path = host.folder / f"{process.pid}-{number}.dat"
        path.write_bytes(bytes(2 * PAGE))
        content = f"process {process.pid}, file {number}".encode()
        mapping = maps.map_file(process.pid, path)
        mapping[: len(content)] = content
        host.expected_files[path] = content.ljust(2 * PAGE, b"\0")
    maps.map_anonymous(process.pid, 16 * PAGE)
    process.adopt(mmap.mmap(-1, PAGE))


@_scene("memory", does="wiped memory, shared memory as owner and as user, a SysV segment")
def _memory(host: Host, process: Process) -> None:
    memory = host.plugin("memory").manager
    memory.allocate(process.pid, 4 * PAGE, wipe=True)[:6] = b"secret"
    shared = memory.create_shared_memory(process.pid, size=PAGE)
    shared.buf[:5] = b"hello"
    user = memory.open_shared_memory(process.pid, shared.name)
    _expect(b"hello", bytes(user.buf[:5]), "what the other side sees")
    memory.create_segment(process.pid, PAGE)


@_scene("callbacks", does="a folder, given back by a function; a call to make in the end")
def _callbacks(host: Host, process: Process) -> None:
    for number in range(2):
        folder = host.folder / f"{process.pid}-{number}.session"
        folder.mkdir()
        if number == 0:
            process.adopt(folder, Path.rmdir)
        else:
            process.callback(folder.rmdir)


@_scene("files", does="a locked file with words unwritten, a temporary one, a FIFO, a pipe's ends")
def _files(host: Host, process: Process) -> None:
    files = host.plugin("files").manager
    path = host.folder / f"{process.pid}.log"
    log = files.open(process.pid, path, "w", encoding="ascii")
    # Nobody flushes or closes it: what is in the buffer must be in the file all the same.
    log.write(f"the last words of process {process.pid}")
    host.expected_files[path] = f"the last words of process {process.pid}".encode()
    files.lock(process.pid, log)
    files.temporary_file(process.pid)
    files.mkfifo(process.pid, host.folder / f"{process.pid}.fifo")
    _adopt(process, os.pipe(), os.close)


@_scene("ipc", does="a pipe, queues with a message unread, a semaphore that a thread waits for")
def _ipc(host: Host, process: Process) -> None:
    ipc = host.plugin("ipc").manager
    reader, writer = ipc.pipe(process.pid)
    writer.write(b"through")
    _expect(b"through", reader.read(7), "what came through the pipe")
    queue = ipc.queue(process.pid, 8)
    queue.put(b"unread")
    ipc.create_sysv_queue(process.pid)
    # A small one: what the queues of a user may take is for all programs together.
    ipc.create_posix_queue(process.pid, max_messages=1, max_message_size=64)
    semaphore = ipc.create_sysv_semaphore(process.pid, value=0)

    def wait_for_ever() -> None:
        with contextlib.suppress(Exception):
            semaphore.acquire()

    threading.Thread(target=wait_for_ever, name=f"semaphore-{process.pid}").start()


@_scene("processes", does="two OS processes, one of them adopted")
def _processes(host: Host, process: Process) -> None:
    # Where there is a folder, whatever has become of ours.
    host.plugin("processes").manager.spawn(process.pid, ["sleep", "1000"], cwd="/")
    sleeper = subprocess.Popen(["sleep", "1000"], cwd="/")  # noqa: S607  found where all programs are
    _adopt(process, [sleeper], _kill)


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


@_scene("scheduler", "processes", does="busy OS processes that take turns, and ignore SIGTERM")
def _scheduler(host: Host, process: Process) -> None:
    scheduler = host.plugin("scheduler").manager
    processes = host.plugin("processes").manager
    # One more than may run at a time, so that somebody is always stopped; and they do not heed
    # a polite request, but for leaving the processors to others meanwhile.
    count = len(os.sched_getaffinity(0)) + 1
    stay = "trap '' TERM; exec sleep 1000"
    command = ["sh", "-c", f'trap "{stay}" TERM; while :; do :; done']
    for busy in [processes.spawn(process.pid, command, cwd="/") for _ in range(count)]:
        scheduler.add(process.pid, busy.os_pid)
        scheduler.set_nice(process.pid, busy.os_pid, 5)
    while not all(each.slices for each in scheduler.statistics(process.pid)):
        time.sleep(0.001)
