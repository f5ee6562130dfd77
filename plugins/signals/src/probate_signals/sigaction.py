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

#: Room for a struct sigaction, which has some 150 bytes.
_SIZE: Final = 256

#: PyDLL keeps the GIL: the call is too short to be worth letting go of it.
_libc: Final = ctypes.PyDLL(None, use_errno=True)


def read(signum: int) -> bytes:
    """The disposition of a signal, in full. Raises OSError."""
    found = ctypes.create_string_buffer(_SIZE)
    _sigaction(signum, None, found)
    return found.raw


def write(signum: int, native: bytes) -> None:
    """Put back a disposition that was read before. Raises OSError."""
    _sigaction(signum, ctypes.create_string_buffer(native, _SIZE), None)


def handler_address(native: bytes) -> int:
    """The address of a disposition's C function; SIG_DFL is 0, SIG_IGN is 1."""
    return ctypes.c_void_p.from_buffer_copy(native).value or 0


def _sigaction(
    signum: int, new: ctypes.Array[ctypes.c_char] | None, old: ctypes.Array[ctypes.c_char] | None
) -> None:
    if _libc.sigaction(ctypes.c_int(signum), new, old) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
