"""Makes one of everything that has a name, with children and a daemon, and gives nothing back.

    python program.py PLACE TAG [std|loky]

Everything is called by the tag. Each of its processes says who it is at the socket PLACE/roll, and
ends when the other end of that is closed; main says what it has made, and ends normally when it is
told to. With the last argument, two or four things are registered with that resource tracker.
Needs nothing but the standard library, and for loky's that one.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import secrets
import signal
import socket
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sem_open.restype = ctypes.c_void_p
_libc.shmat.restype = ctypes.c_void_p

_NEW: Final = os.O_CREAT | os.O_EXCL | os.O_RDWR

#: IPC_CREAT | IPC_EXCL, for this user alone (sysvipc(7)).
_NEW_SYSV: Final = 0o3600

#: One message of eight bytes: all queues of a user are limited together (mq_overview(7)).
_SMALL: Final = (ctypes.c_long * 8)(0, 1, 8)

#: What is to be there until this process ends.
_held: list[object] = []


def made(result: int | None) -> int:
    """The result of a call of C. Raises OSError if it has failed."""
    if result is None or result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def shared_memory(tag: str, track: Tracking) -> dict[str, Any]:
    """POSIX shared memory, by shm_open(3) and by hand; and somebody else's, which is only used."""
    import _posixshmem  # type: ignore[import-not-found]  # no stubs

    things = {"shared memory": f"/dev/shm/{tag}-shm", "shared memory, by hand": f"/dev/shm/{tag}"}
    if track.has_segment:
        shared: Any = import_module("multiprocessing.shared_memory")
        _held.append(shared.SharedMemory(f"{tag}-shm", create=True, size=4096))
    else:
        os.ftruncate(_posixshmem.shm_open(f"/{tag}-shm", _NEW, mode=0o600), 4096)
    os.ftruncate(os.open(f"/dev/shm/{tag}", _NEW, 0o600), 4096)
    before = Path(f"/dev/shm/{tag}-before")
    if before.exists():
        _held.append(before.open("r+b"))
        things["memory of others"] = str(before)
    return things


def ipc(tag: str, track: Tracking) -> dict[str, Any]:
    """POSIX semaphore and queue; System V segments, one of them attached, semaphores, queue."""
    made(_libc.sem_open(f"/{tag}".encode(), os.O_CREAT | os.O_EXCL, 0o600, 1))
    track("semaphore", f"/{tag}")
    made(_libc.mq_open(f"/{tag}".encode(), _NEW, 0o600, _SMALL))
    things: dict[str, Any] = {"semaphore": f"/dev/shm/sem.{tag}", "message queue": f"/{tag}"}
    makers: dict[str, Callable[[int], int]] = {
        "SysV segment, attached": lambda key: _libc.shmget(key, 4096, _NEW_SYSV),
        "SysV segment": lambda key: _libc.shmget(key, 4096, _NEW_SYSV),
        "SysV semaphores": lambda key: _libc.semget(key, 1, _NEW_SYSV),
        "SysV queue": lambda key: _libc.msgget(key, _NEW_SYSV),
    }
    for kind, get in makers.items():
        key = secrets.randbits(30) | 1
        things[kind] = [key, made(get(key))]
    made(_libc.shmat(things["SysV segment, attached"][1], None, 0))
    return things


def sockets(tag: str, place: Path) -> dict[str, Any]:
    """Listeners: at a path in /tmp and elsewhere, at an abstract name, at a port."""
    paths = {"unix socket in /tmp": f"{_tmp()}/{tag}.sock", "unix socket": f"{place}/socket"}
    for address in (*paths.values(), f"\0{tag}"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen()
        _held.append(listener)
    server = socket.create_server(("127.0.0.1", 0))
    _held.append(server)
    port = [server.getsockname()[1], os.fstat(server.fileno()).st_ino]
    return {**paths, "abstract socket": f"@{tag}", "TCP port": port}


def files(tag: str, place: Path, track: Tracking) -> dict[str, Any]:
    """FIFO, temporary file and folder; pid file and backing of a map, which are ordinary files."""
    fifo = f"{_tmp()}/{tag}.fifo"
    os.mkfifo(fifo)
    _held.append(os.open(fifo, os.O_RDWR))
    fd, temporary = tempfile.mkstemp(prefix=f"{tag}-")
    os.write(fd, b"x" * 4096)
    folder = tempfile.mkdtemp(prefix=f"{tag}-")
    Path(folder, "a/b").mkdir(parents=True)
    Path(folder, "a/b/c").touch()
    for sort, path in (("file", fifo), ("file", temporary), ("folder", folder)):
        track(sort, path)
    pid_file = Path(place, "daemon.pid").open("w")  # noqa: SIM115  it has a lock
    fcntl.flock(pid_file, fcntl.LOCK_EX)
    pid_file.write(str(os.getpid()))
    pid_file.flush()
    backing = Path(place, "arena").open("w+b")  # noqa: SIM115  it is mapped
    backing.truncate(65536)
    _held.extend((pid_file, backing, mmap.mmap(backing.fileno(), 65536)))
    return {
        "FIFO": fifo,
        "temporary file": temporary,
        "temporary folder": folder,
        "pid file": pid_file.name,
        "backing of a map": str(backing.name),
    }


def data(tag: str, place: Path) -> dict[str, Any]:
    """What the program is for: results, one of them in /tmp, and a row in a database."""
    result, in_tmp = place / "result.dat", Path(_tmp(), f"{tag}-result.csv")
    result.write_text("result\n")
    in_tmp.write_text("a,b\n")
    database = place / "before.db"
    with database.open("a") as rows:
        rows.write("row\n")
    return {"result": str(result), "result in /tmp": str(in_tmp), "database": str(database)}


def _tmp() -> str:
    return tempfile.gettempdir()


class Tracking:
    """Registers things with a resource tracker; with none if it has no name."""

    def __init__(self, name: str) -> None:
        #: Whether a segment is registered as it is made.
        self.has_segment = name == "std"
        self._register: Callable[[str, str], None] | None = None
        self._sorts = {"semaphore": "semaphore"}
        if name == "std":
            self._register = import_module("multiprocessing.resource_tracker").register
        elif name == "loky":
            self._register = import_module("loky.backend.resource_tracker").register
            self._sorts = {"semaphore": "semlock", "file": "file", "folder": "folder"}

    def __call__(self, sort: str, name: str) -> None:
        if self._register is not None and sort in self._sorts:
            self._register(name, self._sorts[sort])


def enrol(place: Path, role: str, things: dict[str, Any]) -> socket.socket:
    """Say who this process is, where it is known from then on whether it lives."""
    roll = socket.socket(socket.AF_UNIX)
    roll.connect(f"{place}/roll")
    roll.sendall(json.dumps({"role": role, "things": things}).encode() + b"\n")
    return roll


def be(place: Path, role: str) -> None:
    """Be one of the other processes, until the yardstick has ended."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    roll = enrol(place, role, {})
    if role == "stopped child":
        os.kill(os.getpid(), signal.SIGSTOP)
    roll.recv(1)
    os._exit(0)


def main(place: Path, tag: str, tracker: str) -> None:
    """Make everything, say so, and end when told to."""
    # Else the kernel hangs up the whole orphaned group, because of the stopped one (setpgid(2)).
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    track = Tracking(tracker)
    things = {
        **shared_memory(tag, track),
        **sockets(tag, place),
        **files(tag, place, track),
        **data(tag, place),
        # Last: what has no name could not be removed if anything failed behind it.
        **ipc(tag, track),
    }
    for role in ("child", "other child", "stopped child"):
        if os.fork() == 0:
            be(place, role)
    middle = os.fork()
    if middle == 0:
        # A daemon: it has left its parents and the session.
        os.setsid()
        if os.fork() == 0:
            be(place, "daemon")
        os._exit(0)
    os.waitpid(middle, 0)
    enrol(place, "main", things).recv(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
