"""System V objects that are made for a program that asks for them (sysvipc(7)).

Of a semaphore the kernel keeps no maker, and an object without a key has nothing that it could be
found by. So the keeper makes them itself, where it is the same to the kernel as the program is,
and hands on the id: then it is certain which one it was.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import TYPE_CHECKING, Final

from probate.run.filter import IPC_CREAT, IPC_PRIVATE
from probate.system.clib import libc
from probate.system.osprocess import read_proc

if TYPE_CHECKING:
    from probate.journal.sysv import SysvSort
    from probate.run.notices import Held

#: Each call, and what it makes.
SORTS: Final[dict[str, SysvSort]] = {"shmget": "shm", "semget": "sem", "msgget": "msg"}

_IPC_EXCL: Final = 0o2000

#: What the kernel goes by (proc(5), /proc/PID/status); and the namespaces that it does so in.
_CREDENTIALS: Final = (b"Uid:", b"Gid:", b"Groups:", b"CapEff:")
_NAMESPACES: Final = ("ipc", "user")


def make_for(held: Held) -> int | None:
    """Make what a call asks for; return its id, or None if it is to be made by the program itself.

    That is so if there is one of that key already, if nothing can be made, and if the program is
    another than this process to the kernel. Raises OSError if that cannot be seen.
    """
    key, size, flags = (ctypes.c_int(held.arguments[at]).value for at in (0, 1, 2))
    if held.call == "msgget":
        flags = size
    if not is_like_us(held.tid):
        return None
    if key != IPC_PRIVATE:
        if not flags & IPC_CREAT:
            return None
        # One that is there already is not made, whatever is asked for.
        flags |= _IPC_EXCL
    get = getattr(libc(), held.call)
    if held.call == "msgget":
        made = get(key, flags)
    elif held.call == "shmget":
        made = get(key, ctypes.c_size_t(held.arguments[1]), flags)
    else:
        made = get(key, size, flags)
    return int(made) if made >= 0 else None


def key_of(held: Held) -> int:
    """Return the key that a call asks for."""
    return ctypes.c_int(held.arguments[0]).value


def is_like_us(tid: int) -> bool:
    """Tell whether a thread is the same to the kernel as this process. Raises OSError."""
    return _standing_of(f"/proc/{tid}") == _own_standing()


@functools.cache
def _own_standing() -> tuple[object, ...]:
    return _standing_of("/proc/self")


def _standing_of(folder: str) -> tuple[object, ...]:
    lines = read_proc(f"{folder}/status").split(b"\n")
    namespaces = [os.readlink(f"{folder}/ns/{each}") for each in _NAMESPACES]
    return (*namespaces, *(line for line in lines if line.startswith(_CREDENTIALS)))


def is_in_our_ipc(tid: int) -> bool:
    """Tell whether a thread has the IPC namespace of this process. Raises OSError."""
    return os.readlink(f"/proc/{tid}/ns/ipc") == os.readlink("/proc/self/ns/ipc")
