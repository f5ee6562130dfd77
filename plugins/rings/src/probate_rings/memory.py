"""Sealed memfds (memfd_create(2)) and their mappings."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from probate.system import open_owned, opened
from probate_rings.errors import RingFormatError

if TYPE_CHECKING:
    from probate.system import OwnedDescriptor

#: The name by which /proc shows the memory.
NAME: Final = "probate-ring"

#: The size is fixed for ever, so that nobody can make an access beyond the end (SIGBUS) happen.
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_MAP_FIXED: Final = 0x10
_EVENTFD: Final = "anon_inode:[eventfd]"


def create(size: int) -> OwnedDescriptor:
    """Make a memfd of `size` bytes, zeroed, sealed and backed by pages. Raises OSError."""

    def seal(memory: OwnedDescriptor) -> OwnedDescriptor:
        os.ftruncate(memory.number, size)
        # Better ENOSPC now than SIGBUS at the first touch.
        os.posix_fallocate(memory.number, 0, size)
        fcntl.fcntl(memory.number, fcntl.F_ADD_SEALS, _SEALS)
        return memory

    return opened(partial(os.memfd_create, NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), seal)


def create_doorbell() -> OwnedDescriptor:
    """Make an eventfd. Raises OSError."""
    flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
    return open_owned(partial(os.eventfd, 0, flags))


def duplicate(fd: int) -> OwnedDescriptor:
    """Duplicate a descriptor. Raises OSError."""
    return open_owned(partial(fcntl.fcntl, fd, fcntl.F_DUPFD_CLOEXEC, 0))


def checked_size(fd: int) -> int:
    """The size of a memfd that somebody else made. Raises RingFormatError if it may change."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise RingFormatError(f"descriptor {fd} is no memfd: {error.strerror}") from None
    if seals & _SEALS != _SEALS:
        raise RingFormatError(
            f"descriptor {fd} is not sealed against changes of its size (seals: {seals:#x})"
        )
    return os.fstat(fd).st_size


def check_doorbell(fd: int) -> None:
    """Raise RingFormatError unless `fd` is an eventfd (eventfd(2))."""
    what = os.readlink(f"/proc/self/fd/{fd}")
    if what != _EVENTFD:
        raise RingFormatError(f"descriptor {fd} is {what}, where an eventfd is expected")


def map_shared(fd: int, size: int) -> mmap.mmap:
    """Map memory, shared, read and write. The mapping keeps no descriptor of its own.

    `mmap.mmap` would keep a duplicate open until the last buffer is let go. Raises OSError.
    """
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, trackfd=False)
    # Reserve the addresses, then put the memory there: the object unmaps it like its own.
    reserved = mmap.mmap(-1, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(reserved))
    if _map_at(address, fd, size) != address:
        number = ctypes.get_errno()
        reserved.close()
        raise OSError(number, os.strerror(number), f"memfd:{NAME}")
    return reserved


def _map_at(address: int, fd: int, size: int) -> int:
    """mmap(2) with MAP_FIXED, which `mmap.mmap` has no way to say."""
    prototype = ctypes.CFUNCTYPE(
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
        use_errno=True,
    )
    call = prototype(("mmap", ctypes.CDLL(None)))
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    mapped: int = call(address, size, protection, mmap.MAP_SHARED | _MAP_FIXED, fd, 0)
    return mapped
