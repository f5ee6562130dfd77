"""The kernel's side of a disposition: sigaction(2), which `signal` does not offer.

`signal.getsignal` tells what Python believes. It knows nothing of handlers that C code has
installed since the start, and returns None for those from before, which `signal.signal` cannot
put back. What is read here is opaque but for its first word: the handler, on all of Linux's
architectures but MIPS.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

#: Room for a struct sigaction, which has some 150 bytes; the first word is the handler. A new one
#: for each call, since a signal may come in between two looks at it.
_Room: Final = ctypes.c_void_p * (256 // ctypes.sizeof(ctypes.c_void_p))

#: PyDLL keeps the GIL: the call is too short to be worth letting go of it.
_libc: Final = ctypes.PyDLL(None, use_errno=True)


def read(signum: int) -> bytes:
    """The disposition of a signal, in full. Raises OSError."""
    return bytes(_look(signum))


def read_address(signum: int) -> int:
    """The address of a signal's C function; SIG_DFL is 0, SIG_IGN is 1. Raises OSError."""
    address: int | None = _look(signum)[0]
    return address or 0


def write(signum: int, native: bytes) -> None:
    """Put back a disposition that was read before. Raises OSError."""
    if _libc.sigaction(signum, native, None) != 0:
        raise _last_error()


def handler_address(native: bytes) -> int:
    """As `read_address`, of a disposition that was read."""
    return ctypes.c_void_p.from_buffer_copy(native).value or 0


def _look(signum: int) -> ctypes.Array[ctypes.c_void_p]:
    found = _Room()
    if _libc.sigaction(signum, None, found) != 0:
        raise _last_error()
    return found


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
