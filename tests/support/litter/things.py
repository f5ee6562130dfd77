"""What the program makes: whether each of it is there still, as the kernel says from outside."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from run_things import libc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Its processes, by what they say they are.
PROCESSES: Final = ("main", "child", "other child", "stopped child", "daemon")

#: What is to be kept: results, and what was there before.
DATA: Final = ("result", "result in /tmp", "database", "memory of others")

#: What may be left, as a reader is told of it: several kinds together.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "main and children": PROCESSES[:3],
    "stopped child": ("stopped child",),
    "daemon": ("daemon",),
    "TCP port": ("TCP port",),
    "POSIX shared memory": ("shared memory", "shared memory, by hand"),
    "POSIX semaphore": ("semaphore",),
    "POSIX queue": ("message queue",),
    "System V": ("SysV segment, attached", "SysV segment", "SysV semaphores", "SysV queue"),
    "unix socket path": ("unix socket in /tmp", "unix socket"),
    "abstract socket": ("abstract socket",),
    "FIFO": ("FIFO",),
    "temporary file, folder": ("temporary file", "temporary folder"),
    "pid file, map backing": ("pid file", "backing of a map"),
}

#: All that is litter: 22 kinds.
LITTER: Final = tuple(kind for kinds in GROUPS.values() for kind in kinds)


def is_there(kind: str, what: Any) -> bool:
    """Whether something of a kind that is no process is there still."""
    if kind == "message queue":
        fd = libc.mq_open(what.encode(), os.O_RDONLY)
        if fd >= 0:
            os.close(fd)
        return bool(fd >= 0)
    if kind.startswith("SysV"):
        return what in _sysv(_WHICH[kind])
    if kind == "abstract socket":
        # Others have names that are no text.
        return what.encode() in Path("/proc/net/unix").read_bytes().split()
    if kind == "TCP port":
        return what in _listeners()
    return os.path.lexists(what)


def remove(kind: str, what: Any) -> None:
    """Remove something of a kind, if it is there still, and is not gone by itself."""
    if kind in {"abstract socket", "TCP port"} or not is_there(kind, what):
        return
    if kind == "message queue":
        libc.mq_unlink(what.encode())
    elif kind.startswith("SysV"):
        _REMOVERS[_WHICH[kind]](what[1])
    elif kind == "temporary folder":
        shutil.rmtree(what)
    else:
        Path(what).unlink()


def remove_called(tag: str) -> None:
    """Remove what a program has left that did not come to say what it had made."""
    for folder in ("/dev/shm", "/tmp"):
        for path in Path(folder).glob(f"*{tag}*"):
            remove("temporary folder" if path.is_dir() else "file", str(path))
    remove("message queue", f"/{tag}")


_WHICH: Final = {
    "SysV segment, attached": "shm",
    "SysV segment": "shm",
    "SysV semaphores": "sem",
    "SysV queue": "msg",
}

#: IPC_RMID is 0 (shmctl(2)).
_REMOVERS: Final[Mapping[str, Callable[[int], object]]] = {
    "shm": lambda id_: libc.shmctl(id_, 0, None),
    "sem": lambda id_: libc.semctl(id_, 0, 0, 0),
    "msg": lambda id_: libc.msgctl(id_, 0, None),
}


def _sysv(which: str) -> list[list[int]]:
    """Key and id of each object: an id alone may be another's by now."""
    lines = Path(f"/proc/sysvipc/{which}").read_text().splitlines()[1:]
    return [[int(key) & 0xFFFFFFFF, int(id_)] for key, id_, *_ in map(str.split, lines)]


def _listeners() -> list[list[int]]:
    """Port and inode of each TCP socket that listens (proc(5))."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A":
            found.append([int(words[1].rpartition(":")[2], 16), int(words[9])])
    return found
