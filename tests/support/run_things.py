"""Makes things by name, as a program does that knows nothing of Probate; and looks for them."""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
libc.sem_open.restype = ctypes.c_void_p
libc.shmat.restype = ctypes.c_void_p

CREATE = 0o1000
EXCLUSIVE = 0o2000

#: One message of eight bytes: all queues of a user are limited together (RLIMIT_MSGQUEUE).
_SMALL = (ctypes.c_long * 8)(0, 1, 8)

_kept: list[object] = []


def checked(result: int | None) -> int:
    if result is None or result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def shm(name: str) -> str:
    import _posixshmem  # type: ignore[import-not-found]  # no stubs

    fd = _posixshmem.shm_open(f"/{name}", os.O_CREAT | os.O_RDWR, mode=0o600)
    os.ftruncate(fd, 4096)
    return f"/dev/shm/{name}"


def shm_exclusively(name: str) -> str:
    os.open(f"/dev/shm/{name}-only", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    return f"/dev/shm/{name}-only"


def semaphore(name: str) -> str:
    checked(libc.sem_open(f"/{name}".encode(), os.O_CREAT, 0o600, 1))
    return f"/dev/shm/sem.{name}"


def queue(name: str) -> str:
    checked(libc.mq_open(f"/{name}".encode(), os.O_CREAT | os.O_RDWR, 0o600, _SMALL))
    return f"mq:/{name}"


def _sysv(which: str, id_: int) -> str:
    return f"{which}:{checked(id_)}"


def _key() -> int:
    return secrets.randbits(30) | 1


def segment(_: str) -> str:
    return _sysv("shm", libc.shmget(_key(), 4096, CREATE | EXCLUSIVE | 0o600))


def private_segment(_: str) -> str:
    id_ = libc.shmget(0, 4096, 0o600)
    checked(libc.shmat(id_, None, 0))
    return _sysv("shm", id_)


def semaphores(_: str) -> str:
    return _sysv("sem", libc.semget(_key(), 3, CREATE | 0o600))


def messages(_: str) -> str:
    return _sysv("msg", libc.msgget(_key(), CREATE | 0o600))


def private_messages(_: str) -> str:
    return _sysv("msg", libc.msgget(0, 0o600))


def unix(name: str) -> str:
    path = f"{tempfile.gettempdir()}/{name}.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    _kept.append(listener)
    return path


def relative_unix(name: str) -> str:
    folder = tempfile.mkdtemp(dir=".")
    os.chdir(folder)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    _kept.append(listener)
    return f"{Path.cwd()}/{name}"


def fifo(name: str) -> str:
    os.mkfifo(f"{tempfile.gettempdir()}/{name}.fifo")
    return f"{tempfile.gettempdir()}/{name}.fifo"


def temporary_file(name: str) -> str:
    return tempfile.mkstemp(prefix=name)[1]


def temporary_folder(name: str) -> str:
    path = tempfile.mkdtemp(prefix=name)
    Path(f"{path}/a/b").mkdir(parents=True)
    Path(f"{path}/a/b/c").touch()
    return path


def folder_in_shm(name: str) -> str:
    Path(f"/dev/shm/{name}-folder").mkdir(0o777)
    return f"/dev/shm/{name}-folder"


#: What is given back, and the kind whose it is.
THINGS: dict[Callable[[str], str], str] = {
    shm: "memory",
    shm_exclusively: "memory",
    segment: "memory",
    private_segment: "memory",
    semaphore: "ipc",
    queue: "ipc",
    semaphores: "ipc",
    messages: "ipc",
    private_messages: "ipc",
    unix: "sockets",
    relative_unix: "sockets",
    fifo: "files",
    temporary_file: "files",
    temporary_folder: "files",
    folder_in_shm: "files",
}


def is_there(thing: str) -> bool:
    """Whether something that one of these has made is there still, as the kernel says."""
    which, _, name = thing.partition(":")
    if which == "mq":
        fd = libc.mq_open(name.encode(), os.O_RDONLY)
        if fd >= 0:
            os.close(fd)
        return bool(fd >= 0)
    if which in ("shm", "sem", "msg"):
        lines = Path(f"/proc/sysvipc/{which}").read_text().splitlines()[1:]
        return name in {line.split()[1] for line in lines}
    return os.path.lexists(thing)


def remove(thing: str) -> None:
    """Remove it, if it is there, at the end of a test."""
    which, _, name = thing.partition(":")
    if not is_there(thing):
        return
    if which == "mq":
        libc.mq_unlink(name.encode())
    elif which == "sem":
        libc.semctl(int(name), 0, 0, 0)
    elif which in ("shm", "msg"):
        getattr(libc, f"{which}ctl")(int(name), 0, None)
    elif Path(thing).is_dir():
        Path(thing).rmdir()
    else:
        Path(thing).unlink()


def remove_called(name: str) -> None:
    """Remove what is called so in the folders that all share."""
    for folder in ("/dev/shm", "/tmp"):
        for path in Path(folder).glob(f"*{name}*"):
            remove(str(path))
