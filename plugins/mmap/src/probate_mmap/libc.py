"""What the mmap module does not offer, or does only while it keeps all other threads waiting."""

from __future__ import annotations

import ctypes
import functools
import os
from collections import deque
from itertools import starmap
from typing import TYPE_CHECKING, Final

from probate.system import take

if TYPE_CHECKING:
    import mmap

#: From <sys/mman.h>; the same on all of Linux's architectures but alpha and parisc.
_MS_SYNC: Final = 4
_MAP_FIXED: Final = 0x10
_MAP_FAILED: Final = ctypes.c_void_p(-1).value


class _Buffer(ctypes.Structure):
    """`Py_buffer`, part of the stable ABI since 3.11 (docs.python.org/3/c-api/buffer.html)."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def msync(address: int, nbytes: int) -> None:
    """Write changed pages to their file and wait for that (msync(2)); other threads go on.

    Raises OSError. Reads and writes none of the memory, so that it is safe to call for a range
    that somebody else unmaps meanwhile.
    """
    if _libc().msync(address, nbytes, _MS_SYNC) != 0:
        raise _last_error()


def try_to_map(fd: int, nbytes: int, *, prot: int, flags: int, offset: int) -> None:
    """Map a part of an open file, and unmap it again (mmap(2)). Raises OSError."""
    mapped: list[int | None] = []

    def unmap() -> None:
        # Each taken out in the same step, of C: no other is mapped there by then.
        if any(each is not None and each != _MAP_FAILED for each in mapped):
            deque(map(_libc().munmap, starmap(mapped.pop, ((),)), (nbytes,)), 0)

    try:
        take(mapped, _libc().mmap, None, nbytes, prot, flags, fd, offset)
        _checked(mapped[0])
        unmap()
    except BaseException:
        unmap()
        raise


def map_file_over(
    address: int, fd: int, nbytes: int, *, prot: int, flags: int, offset: int
) -> None:
    """Map a part of an open file in the place of what is mapped at `address` (MAP_FIXED).

    Raises OSError; whether anything is still mapped there is unknown then.
    """
    _map(address, nbytes, prot, flags | _MAP_FIXED, fd, offset)


def address_of(native: mmap.mmap) -> int:
    """Where a map lies; it counts as exported for just this moment.

    Raises ValueError if it is closed.
    """
    buffer = _Buffer()
    reference = ctypes.byref(buffer)
    release = ctypes.pythonapi.PyBuffer_Release
    exported: list[int] = []
    try:
        # A failing call of the Python API raises here what it has set, a ValueError.
        take(exported, ctypes.pythonapi.PyObject_GetBuffer, ctypes.py_object(native), reference, 0)
        return buffer.buf or 0
    finally:
        if exported:
            release(reference)


def never_finalise(native: mmap.mmap) -> None:
    """Have a map outlive the interpreter, so that it unmaps nothing ever."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.msync.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    return libc


def _map(address: int | None, nbytes: int, prot: int, flags: int, fd: int, offset: int) -> int:
    return _checked(_libc().mmap(address, nbytes, prot, flags, fd, offset))


def _checked(mapped: int | None) -> int:
    if mapped is None or mapped == _MAP_FAILED:
        raise _last_error()
    return mapped


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
