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
from typing import TYPE_CHECKING, Final

from probate.errors import ProbateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.cli.demo.host import Host
    from probate.process.process import Process

LOOPBACK: Final = ("127.0.0.1", 0)
PAGE: Final = mmap.PAGESIZE


def set_up(host: Host, process: Process) -> list[str]:
    """Run all scenes whose kinds are installed; return a line for each, or why it had to differ."""
    lines: list[str] = []
    for kinds, scene, line in SCENES:
        if host.has(*kinds):
            lines.append(scene(host, process) or line)
    return lines


def _sockets(host: Host, process: Process) -> None:
    sockets = host.plugin("sockets").manager
    listener = sockets.listen_tcp(process.pid, LOOPBACK)
    client = sockets.connect_tcp(process.pid, listener.getsockname())
    server = sockets.accept(process.pid, listener)
    client.sendall(b"ping")
    server.sendall(server.recv(4))
    if client.recv(4) != b"ping":
        raise RuntimeError("the echo did not come back")
    # More is on its way when the end comes, and nobody will read it.
    client.sendall(b"unread" * 100)
    sockets.bind_udp(process.pid, LOOPBACK)
    sockets.listen_unix(process.pid, host.folder / f"{process.pid}.sock")

    def accept_for_ever() -> None:
        with contextlib.suppress(Exception):
            sockets.accept(process.pid, listener)

    threading.Thread(target=accept_for_ever, name=f"accept-{process.pid}").start()
    for end in socket.socketpair():
        process.adopt(end)


def _signals(host: Host, process: Process) -> None:
    signals = host.plugin("signals").manager
    seen: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signals.register(process.pid, number, lambda number, _frame: seen.append(number))
    signals.block(process.pid, {signal.SIGUSR2})
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signals.send(process.pid, number)
    if seen != [signal.SIGUSR1] or list(signals.pending(process.pid)) != [signal.SIGUSR2]:
        raise RuntimeError(f"delivered {seen}, pending {signals.pending(process.pid)}")


def _zero_copy(host: Host, process: Process) -> None:
    ring = host.plugin("rings").zerocopy.create_ring(process.pid, slots=8, block_size=256)
    for number in range(3):
        with ring.sending() as block:
            text = f"message {number}".encode()
            block[: len(text)] = text
            ring.submit(len(text))
    with ring.receiving() as message:
        if bytes(message) != b"message 0":
            raise RuntimeError(f"received {bytes(message)!r}")


def _io_uring(host: Host, process: Process) -> str | None:
    iouring = host.plugin("rings").iouring
    try:
        ring = iouring.create_ring(process.pid, 8)
    except ProbateError as error:
        return f"no io_uring here: {error}"
    quiet, other = socket.socketpair()
    process.adopt(quiet)
    process.adopt(other)
    ring.nop()
    ring.read(quiet.fileno(), 64)
    ring.submit()
    if not ring.reap(1, 5.0):
        raise RuntimeError("the no-op did not complete")
    return None


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


def _exported_buffer(host: Host, process: Process) -> None:
    mapping = host.plugin("mmap").manager.map_anonymous(process.pid, PAGE)
    ours, theirs = socket.socketpair()
    process.adopt(ours)
    process.adopt(theirs)
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


def _memory(host: Host, process: Process) -> None:
    memory = host.plugin("memory").manager
    memory.allocate(process.pid, 4 * PAGE, wipe=True)[:6] = b"secret"
    shared = memory.create_shared_memory(process.pid, size=PAGE)
    shared.buf[:5] = b"hello"
    user = memory.attach_shared_memory(process.pid, shared.name)
    if bytes(user.buf[:5]) != b"hello":
        raise RuntimeError("the other side sees something else")
    memory.create_segment(process.pid, PAGE)


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
    for end in os.pipe():
        process.adopt(end)


def _ipc(host: Host, process: Process) -> None:
    ipc = host.plugin("ipc").manager
    reader, writer = ipc.pipe(process.pid)
    writer.write(b"through")
    if reader.read(7) != b"through":
        raise RuntimeError("the pipe gave something else")
    queue = ipc.queue(process.pid, 8)
    queue.put(b"unread")
    ipc.sysv_queue(process.pid)
    ipc.posix_queue(process.pid)
    semaphore = ipc.semaphore(process.pid, 0)

    def wait_for_ever() -> None:
        with contextlib.suppress(Exception):
            semaphore.acquire()

    threading.Thread(target=wait_for_ever, name=f"semaphore-{process.pid}").start()


def _processes(host: Host, process: Process) -> None:
    host.plugin("processes").manager.spawn(process.pid, ["sleep", "1000"])
    process.adopt(subprocess.Popen(["sleep", "1000"]))  # noqa: S607  found where all programs are


def _scheduler(host: Host, process: Process) -> None:
    scheduler = host.plugin("scheduler").manager
    processes = host.plugin("processes").manager
    # One more than may run at a time, so that somebody is always stopped; and they do not heed
    # a polite request.
    count = len(os.sched_getaffinity(0)) + 1
    command = ["sh", "-c", "trap '' TERM; while :; do :; done"]
    for busy in [processes.spawn(process.pid, command) for _ in range(count)]:
        scheduler.add(process.pid, busy.os_pid)
        scheduler.set_nice(process.pid, busy.os_pid, 5)
    while not all(each.slices for each in scheduler.statistics(process.pid)):
        time.sleep(0.001)


#: The kinds that a scene needs, the scene, and what to say of it.
SCENES: Final[tuple[tuple[tuple[str, ...], Callable[[Host, Process], str | None], str], ...]] = (
    (
        ("sockets",),
        _sockets,
        "TCP with traffic, a thread blocked in accept, UDP, unix, an adopted pair",
    ),
    (("signals",), _signals, "handlers for two signals, one delivered, one blocked and pending"),
    (("rings",), _zero_copy, "a zero-copy ring with messages in flight"),
    (("rings", "sockets"), _io_uring, "an io_uring with a read in flight that will never complete"),
    (("tasks",), _tasks, "a ticking task, one that is slow to stop, one adopted, a thread at work"),
    (("mmap", "sockets"), _exported_buffer, "a map whose buffer a blocked thread is reading into"),
    (("mmap",), _maps, "dirty shared file maps, an anonymous map, an adopted one"),
    (("memory",), _memory, "wiped memory, shared memory as owner and as user, a SysV segment"),
    (
        ("files",),
        _files,
        "a locked file with words unwritten, a temporary one, a FIFO, a pipe's ends",
    ),
    (("ipc",), _ipc, "a pipe, queues with a message unread, a semaphore that a thread waits for"),
    (("processes",), _processes, "two OS processes, one of them adopted"),
    (
        ("scheduler", "processes"),
        _scheduler,
        "busy OS processes that take turns, and ignore SIGTERM",
    ),
)
