"""A program that makes things of all sorts by name without a pause, and removes every other one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: Two processes do it, of which one may have a session of its own. Each says its pid when it has
#: begun, stops making when there are many, and waits to be killed. What has an even number stays.
_BUSY: Final = """
import ctypes, itertools, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.sem_open.restype = ctypes.c_void_p
name, place, sort = sys.argv[1:]
small = (ctypes.c_long * 8)(0, 1, 8)
if os.fork() == 0 and sort == "session":
    os.setsid()

def made(result):
    if result is None or result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

for number in itertools.count():
    each = f"{name}-{os.getpid()}-{number}"
    os.close(os.open(f"/dev/shm/{each}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    made(libc.sem_open(f"/{each}".encode(), os.O_CREAT, 0o600, 1))
    os.close(made(libc.mq_open(f"/{each}".encode(), os.O_CREAT | os.O_RDWR, 0o600, small)))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place}/{each}")
    os.mkfifo(f"{place}/{each}-fifo")
    os.close(os.open(f"/tmp/{each}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    if number % 2:
        os.unlink(f"/dev/shm/{each}")
        libc.sem_unlink(f"/{each}".encode())
        os.unlink(f"{place}/{each}")
    libc.mq_unlink(f"/{each}".encode())
    if number == 3:
        os.write(1, b"%d\\n" % os.getpid())
    if number > 30:
        break
time.sleep(1000)
"""


def busy(name: str, place: Path, *, has_session: bool = False) -> list[str]:
    """The command of it, which calls everything so, and has its sockets and FIFOs in a folder."""
    return [sys.executable, "-c", _BUSY, name, str(place), "session" if has_session else "child"]


def stays(name: str) -> bool:
    """Whether the program itself never removes what it has called so."""
    number = name.removesuffix("-fifo").rpartition("-")[2]
    return number.isdecimal() and int(number) % 2 == 0
