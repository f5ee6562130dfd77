"""What a call that is held is about to make is read from the memory of whoever calls."""

from __future__ import annotations

import ctypes
import mmap
import os

from probate.run.notices import Held, attempt_of


def test_a_path_is_read_whole() -> None:
    """Of any length, wherever it lies: across pages, or before one that nobody has mapped."""
    memory = mmap.mmap(-1, 3 * mmap.PAGESIZE)
    pin = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(pin)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    assert protect(ctypes.c_void_p(address + 2 * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
    end = 2 * mmap.PAGESIZE
    for length in (5, 255, 256, 257, 300, 4000, 4095):
        path = "/" + "".join(chr(97 + n % 26) for n in range(length - 1))
        for at in {0, mmap.PAGESIZE - 3, end - length - 1}:
            memory[at : at + length + 1] = path.encode() + b"\0"
            arguments = (0, address + at, os.O_CREAT | os.O_EXCL, 0o600, 0, 0)
            held = Held(1, os.getpid(), "openat", arguments)

            assert attempt_of(held) == ("open", path, os.O_CREAT | os.O_EXCL)
    del pin
