"""The kinds of this repository, as the conformance kit takes them: what the kernel says of each."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import mmap
import os
import shutil
import signal
import socket
import subprocess
import threading
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import posix_ipc
import sysv_ipc
from conformance_kernel import (
    PLACE,
    by_key,
    has_queue,
    inode_of,
    inode_of_map,
    is_in_shm,
    is_mapped,
    is_open,
    lives,
    make_file,
    paths,
    use_folder,
)
from drivers import LOOPBACK
from processes_kernel import lives as is_running
from scheduler_driver import sleeper
from signals_kernel import is_caught

from probate import Callback, NotOwnedError, OsProcess, Outcome, ProcessTerminatedError
from probate.testing import KindDescription, NameDescription
from probate_callbacks import CallbackResource
from probate_files import FileResource
from probate_ipc import IpcResource
from probate_memory import MemoryResource, UntrackedSharedMemory
from probate_mmap import MappingResource
from probate_processes import ProcessTreeResource
from probate_rings import IoUringManager, IoUringUnavailableError, RingResource
from probate_scheduler import SchedulerResource
from probate_signals import SignalResource
from probate_sockets import SocketResource
from probate_tasks import TaskResource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

Descriptions = dict[str, KindDescription[Any, Any]]


def _sockets() -> Descriptions:
    found: Descriptions = {}

    def make_udp() -> socket.socket:
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.bind(LOOPBACK)
        return made

    def use(udp: socket.socket) -> None:
        udp.sendto(b".", udp.getsockname())
        udp.recv(1)

    @contextlib.contextmanager
    def share(udp: socket.socket) -> Iterator[Callable[[], object]]:
        with udp.dup() as dup:
            yield lambda: use(dup)

    def knock(listener: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(listener.getsockname())
            listener.accept()[0].close()

    def succeed(path: str) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path)

    found["udp"] = KindDescription(
        kind=SocketResource,
        make=lambda kind, pid: kind.manager.bind_udp(pid, LOOPBACK),
        identify=inode_of,
        is_alive=is_open,
        use=use,
        end=socket.socket.close,
        make_elsewhere=make_udp,
        share=share,
    )

    def accept(listener: socket.socket) -> None:
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()

    @contextlib.contextmanager
    def share_listener(listener: socket.socket) -> Iterator[Callable[[], object]]:
        with listener.dup() as dup:
            yield lambda: accept(dup)

    found["tcp-listener"] = KindDescription(
        kind=SocketResource,
        make=lambda kind, pid: kind.manager.listen_tcp(pid, LOOPBACK),
        identify=inode_of,
        is_alive=is_open,
        use=accept,
        share=share_listener,
    )
    found["unix-listener"] = KindDescription(
        kind=SocketResource,
        make=lambda kind, pid: kind.manager.listen_unix(pid, PLACE.new_path()),
        identify=lambda listener: listener.getsockname(),
        is_alive=os.path.lexists,
        use=knock,
        names=paths(lambda listener: listener.getsockname(), succeed=succeed),
        around=PLACE.with_folder,
    )
    return found


def _mmap() -> Descriptions:
    found: Descriptions = {}
    found["anonymous-map"] = KindDescription(
        kind=MappingResource,
        make=lambda kind, pid: kind.manager.map_anonymous(pid, mmap.PAGESIZE),
        identify=inode_of_map,
        is_alive=is_mapped,
        use=lambda native: native[0],
        end=mmap.mmap.close,
        make_elsewhere=lambda: mmap.mmap(-1, mmap.PAGESIZE),
        keep_busy=memoryview,
    )
    found["temporary-map"] = KindDescription(
        kind=MappingResource,
        make=lambda kind, pid: kind.manager.map_temporary(
            pid, mmap.PAGESIZE, directory=PLACE.folder
        ),
        identify=lambda native: native.path,
        is_alive=os.path.lexists,
        use=lambda native: native[0],
        keep_busy=memoryview,
        names=paths(lambda native: native.path, succeed=make_file, in_use=open),
        around=PLACE.with_folder,
    )
    return found


def _memory() -> Descriptions:
    found: Descriptions = {}

    def elsewhere() -> UntrackedSharedMemory:
        return UntrackedSharedMemory(f"test-{os.urandom(8).hex()}", create=True, size=4096)

    def end(segment: UntrackedSharedMemory) -> None:
        segment.close()
        segment.unlink()

    def end_segment(segment: sysv_ipc.SharedMemory) -> None:
        segment.detach()
        segment.remove()

    def succeed(name: str) -> None:
        UntrackedSharedMemory(name, create=True, size=4096).close()

    found["shared-memory"] = KindDescription(
        kind=MemoryResource,
        make=lambda kind, pid: kind.manager.create_shared_memory(pid, size=4096),
        identify=lambda segment: segment.name,
        is_alive=is_in_shm,
        use=lambda segment: segment.buf[0],
        end=end,
        make_elsewhere=elsewhere,
        keep_busy=lambda segment: segment.buf[:1],
    )
    # Not what is made elsewhere: in a forked host nobody knows whether its parent has made it.
    found["named-shared-memory"] = replace(
        found["shared-memory"],
        make_elsewhere=None,
        names=NameDescription(
            name=lambda segment: segment.name,
            is_there=is_in_shm,
            remove=lambda name: Path(f"/dev/shm/{name}").unlink(),
            succeed=succeed,
            in_use=lambda name: open(f"/dev/shm/{name}"),  # noqa: SIM115  closed by who uses it
        ),
    )
    found["sysv-segment"] = by_key(
        "shm",
        MemoryResource,
        lambda kind, pid: kind.manager.create_segment(pid, 4096),
        use=lambda segment: segment.read(1),
        end=end_segment,
        make_elsewhere=lambda: sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=4096),
    )
    return found


def _ipc() -> Descriptions:
    found: Descriptions = {}

    def adopt(kind: Any, pid: int) -> Connection:
        first, second = Pipe()
        second.close()
        try:
            kind.manager.adopt(pid, first)
        except BaseException:
            first.close()
            raise
        return first

    def pass_on(queue: Any) -> None:
        queue.send(b".")
        queue.receive()

    found["connection"] = KindDescription(
        kind=IpcResource,
        make=adopt,
        identify=inode_of,
        is_alive=is_open,
        use=lambda first: first.poll(),
        end=lambda first: first.close(),
        make_elsewhere=lambda: Pipe()[0],
    )
    found["posix-queue"] = KindDescription(
        kind=IpcResource,
        make=lambda kind, pid: kind.manager.create_posix_queue(
            pid, max_messages=2, max_message_size=64
        ),
        identify=lambda queue: queue.name,
        is_alive=has_queue,
        use=pass_on,
        names=NameDescription(
            name=lambda queue: queue.name,
            is_there=has_queue,
            remove=posix_ipc.unlink_message_queue,
            in_use=lambda name: contextlib.closing(posix_ipc.MessageQueue(name)),
            succeed=lambda name: posix_ipc.MessageQueue(
                name, posix_ipc.O_CREX, max_messages=1
            ).close(),
        ),
    )
    found["posix-semaphore"] = KindDescription(
        kind=IpcResource,
        make=lambda kind, pid: kind.manager.create_posix_semaphore(pid),
        identify=lambda semaphore: f"sem.{semaphore.name[1:]}",
        is_alive=is_in_shm,
        use=lambda semaphore: semaphore.release(),
        names=NameDescription(
            name=lambda semaphore: semaphore.name,
            is_there=lambda name: is_in_shm(f"sem.{name[1:]}"),
            remove=posix_ipc.unlink_semaphore,
            in_use=lambda name: contextlib.closing(posix_ipc.Semaphore(name)),
            succeed=lambda name: posix_ipc.Semaphore(name, posix_ipc.O_CREX).close(),
        ),
    )
    found["sysv-queue"] = by_key(
        "msg", IpcResource, lambda kind, pid: kind.manager.create_sysv_queue(pid), use=pass_on
    )
    found["sysv-semaphore"] = by_key(
        "sem",
        IpcResource,
        lambda kind, pid: kind.manager.create_sysv_semaphore(pid),
        use=lambda semaphore: semaphore.release(),
    )
    return found


def _files() -> Descriptions:
    found: Descriptions = {}

    def memfd() -> int:
        return os.memfd_create("elsewhere")

    found["descriptor"] = KindDescription(
        kind=FileResource,
        make=lambda kind, pid: kind.manager.memfd(pid),
        identify=inode_of,
        is_alive=is_open,
        use=os.fstat,
        give_back=lambda kind, pid, fd: kind.manager.close(pid, fd),
        end=os.close,
        make_elsewhere=memfd,
    )
    found["temporary-file"] = KindDescription(
        kind=FileResource,
        make=lambda kind, pid: kind.manager.temporary_file(pid, directory=PLACE.folder),
        identify=lambda file: file.name,
        is_alive=os.path.lexists,
        use=lambda file: file.write(b"."),
        names=paths(lambda file: file.name, succeed=make_file, in_use=open),
        around=PLACE.with_folder,
    )
    found["temporary-folder"] = KindDescription(
        kind=FileResource,
        make=lambda kind, pid: kind.manager.temporary_directory(pid, directory=PLACE.folder),
        is_alive=os.path.lexists,
        use=use_folder,
        end=os.rmdir,
        names=paths(remove=shutil.rmtree, succeed=os.mkdir, in_use=contextlib.chdir),
        around=PLACE.with_folder,
    )
    found["fifo"] = KindDescription(
        kind=FileResource,
        make=lambda kind, pid: kind.manager.mkfifo(pid, PLACE.new_path()),
        is_alive=os.path.lexists,
        end=os.unlink,
        names=paths(succeed=os.mkfifo, in_use=lambda path: open(path, "r+b", 0)),  # noqa: SIM115
        around=PLACE.with_folder,
    )
    return found


def _rings() -> Descriptions:
    found: Descriptions = {}

    def is_there(inode: tuple[int, int]) -> bool:
        return is_open(inode) or is_mapped(str(inode[1]))

    @contextlib.contextmanager
    def keep_busy(ring: Any) -> Iterator[None]:
        used = ctypes.c_char.from_buffer(ring.reserve())
        yield
        del used

    found["ring"] = KindDescription(
        kind=RingResource,
        make=lambda kind, pid: kind.zerocopy.create_ring(pid, slots=4, block_size=256),
        identify=lambda ring: inode_of(ring.filenos()[0]),
        is_alive=is_there,
        use=lambda ring: ring.abandon(ring.reserve()),
        keep_busy=keep_busy,
    )
    probe = IoUringManager()
    try:
        probe.close(1, probe.create_ring(1, 1))
    except IoUringUnavailableError:
        return found
    found["io-uring"] = KindDescription(
        kind=RingResource,
        make=lambda kind, pid: kind.iouring.create_ring(pid, 4),
        # All of them have one inode: by the number, which nobody else gets meanwhile.
        identify=lambda ring: ring.fileno(),
        is_alive=lambda fd: os.path.lexists(f"/proc/self/fd/{fd}"),
        many=8,
    )
    return found


def _signals() -> Descriptions:
    found: Descriptions = {}
    # One for each handler, as far as they go: what is caught is told by the number.
    numbers = itertools.cycle(range(signal.SIGRTMIN + 1, signal.SIGRTMAX + 1))

    def register(kind: Any, pid: int) -> Any:
        def handler(_signum: int, _frame: object) -> None:
            """Do nothing."""

        kind.manager.register(pid, next(numbers), handler)
        for entry in kind.table.resources(pid):
            if entry.function is handler:
                return entry
        raise ProcessTerminatedError(pid)

    found["handler"] = KindDescription(
        kind=SignalResource,
        make=register,
        identify=lambda handler: handler.signum,
        is_alive=is_caught,
        use=lambda handler: signal.raise_signal(handler.signum),
        ends_when_asked=True,
        many=12,
    )
    return found


def _tasks() -> Descriptions:
    found: Descriptions = {}

    def spawn(kind: Any, pid: int) -> Any:
        return PLACE.loop.call(lambda: kind.manager.spawn(pid, asyncio.Event().wait()))

    def cancel(kind: Any, pid: int, task: asyncio.Task[Any]) -> None:
        kind.manager.cancel(pid, task)
        asyncio.run_coroutine_threadsafe(asyncio.wait([task]), PLACE.loop.loop).result(10)

    def elsewhere() -> Any:
        return PLACE.loop.call(lambda: asyncio.ensure_future(asyncio.Event().wait()))

    found["task"] = KindDescription(
        kind=TaskResource,
        make=spawn,
        is_alive=lambda task: not task.done(),
        give_back=cancel,
        end=lambda task: PLACE.loop.call(task.cancel),
        make_elsewhere=elsewhere,
        ends_when_asked=True,
        around=PLACE.with_loop,
    )
    return found


def _processes() -> Descriptions:
    found: Descriptions = {}
    sleep = ("sleep", "300")

    def os_pid_of(child: Any) -> int:
        found: int = child.pid if isinstance(child, subprocess.Popen) else child.os_pid
        return found

    def end(child: Any) -> None:
        os.kill(os_pid_of(child), signal.SIGKILL)
        if isinstance(child, subprocess.Popen):
            child.wait()

    found["process"] = KindDescription(
        kind=ProcessTreeResource,
        make=lambda kind, pid: kind.manager.spawn(pid, sleep),
        identify=lambda child: OsProcess.open(os_pid_of(child)),
        is_alive=lives,
        end=end,
        make_elsewhere=lambda: subprocess.Popen(sleep),
        ends_when_asked=True,
        names=NameDescription(
            name=os_pid_of,
            is_there=is_running,
            remove=lambda os_pid: os.kill(os_pid, signal.SIGKILL),
        ),
        many=6,
    )
    return found


def _scheduler() -> Descriptions:
    found: Descriptions = {}
    cpus = os.sched_getaffinity(0)

    choosing = threading.Lock()

    def is_confined(os_pid: int) -> bool:
        return os.sched_getaffinity(os_pid) != cpus

    def queue(kind: Any, pid: int) -> Any:
        with choosing:
            free = (each.pid for each in map(sleeper, itertools.count()))
            os_pid = next(each for each in free if not is_confined(each))
            kind.manager.add(pid, os_pid)
            try:
                kind.manager.set_affinity(pid, os_pid, {min(cpus)})
                return kind.manager.find(pid, os_pid)
            except NotOwnedError:
                raise ProcessTerminatedError(pid) from None

    found["queued"] = KindDescription(
        kind=SchedulerResource,
        make=queue,
        identify=lambda entry: entry.os_pid,
        is_alive=is_confined,
    )
    return found


def _callbacks() -> Descriptions:
    found: Descriptions = {}

    class Client:
        """Something with a socket, which is closed by a function, unless it is in use."""

        def __init__(self) -> None:
            self.socket = socket.socket()
            self.is_busy = False
            self.gate = threading.Event()
            self.gate.set()

        def close(self) -> Outcome:
            self.gate.wait(60)
            if self.is_busy:
                return Outcome.BUSY
            self.socket.close()
            return Outcome.RELEASED

    def adopt(kind: Any, pid: int) -> Client:
        client = Client()
        try:
            kind.table.add(pid, Callback.releasing(client, client.close))
        except BaseException:
            client.socket.close()
            raise
        return client

    @contextlib.contextmanager
    def keep_busy(client: Client) -> Iterator[None]:
        client.is_busy = True
        yield
        client.is_busy = False

    @contextlib.contextmanager
    def stall(client: Client) -> Iterator[None]:
        client.gate.clear()
        yield
        client.gate.set()

    found["callback"] = KindDescription(
        kind=CallbackResource,
        make=adopt,
        identify=lambda client: inode_of(client.socket),
        is_alive=is_open,
        use=lambda client: client.socket.getsockname(),
        end=lambda client: client.socket.close(),
        keep_busy=keep_busy,
        stall=stall,
    )
    return found


#: By kind and sort.
DESCRIPTIONS: Final = {
    f"{each.__name__[1:]}-{sort}": description
    for each in (
        _processes,
        _scheduler,
        _callbacks,
        _mmap,
        _tasks,
        _rings,
        _signals,
        _sockets,
        _files,
        _ipc,
        _memory,
    )
    for sort, description in each().items()
}
