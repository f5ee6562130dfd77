"""What the kernel says of descriptors, pipes and threads: the witness of kind `files`."""

from __future__ import annotations

import os
import platform
import threading
from typing import Final

import pytest

#: Numbers of system calls on x86-64 (syscalls(2)).
_NUMBERS: Final = {"read": 0, "write": 1, "openat": 257}


def is_open(fd: int) -> bool:
    """Whether the number is open, whatever it means."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def fill(fd: int) -> int:
    """Fill a pipe to the last byte, through an open file description of its own."""
    twin = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
    written = 0
    for size in (65536, 4096, 1):
        try:
            while True:
                written += os.write(twin, b"." * size)
        except BlockingIOError:
            continue
    os.close(twin)
    return written


def read_all(fd: int) -> bytes:
    """Read a pipe up to its end."""
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def wait_until_blocked_in(thread: threading.Thread, call: str) -> None:
    """Wait until the kernel has put a thread to sleep in this system call (proc(5))."""
    if platform.machine() != "x86_64":
        pytest.skip("system calls are told by their numbers on x86-64")
    pause = threading.Event()
    for _ in range(2000):
        with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
            if file.read().split()[0] == str(_NUMBERS[call]):
                return
        pause.wait(0.001)
    pytest.fail(f"the thread never blocked in {call}")
