"""The same as attacker.c, for machines without a C compiler: slower, and as hostile."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

_AT_FDCWD = -100
_EXCHANGE = 2
_BIND = 4096
_DETACH = 2


def main() -> None:
    """Do what the words say."""
    folder, mode, name, *more = sys.argv[1:]
    os.chdir(folder)
    libc = ctypes.CDLL(None)
    first, second = name.encode(), "".join(more).encode()
    while mode == "exchange":
        libc.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, _EXCHANGE)
    while mode == "mount":
        if libc.mount(first, second, None, _BIND, None) == 0:
            spin_until(time.monotonic_ns() + 100_000)
            libc.umount2(second, _DETACH)
    for line in sys.stdin:
        spin_until(int(line))
        fd = replaced(name) if mode == "replace" else taken(name)
        say("r")
        sys.stdin.readline()
        fate = fate_of(name, fd)
        with suppress(OSError):
            Path(name).unlink()
        os.close(fd)
        say(fate)


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def spin_until(nanoseconds: int) -> None:
    while time.monotonic_ns() < nanoseconds:
        pass


def replaced(name: str) -> int:
    fd = os.open("new", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    Path("new").rename(name)
    return fd


def taken(name: str) -> int:
    while True:
        with suppress(FileExistsError):
            return os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)


def fate_of(name: str, fd: int) -> str:
    ours = os.fstat(fd)
    if not ours.st_nlink:
        return "removed"
    with suppress(FileNotFoundError):
        if os.lstat(name).st_ino == ours.st_ino:
            return "kept"
    return "moved"


if __name__ == "__main__":
    main()
