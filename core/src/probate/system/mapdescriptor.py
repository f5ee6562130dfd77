"""The descriptor that an `mmap.mmap` of a file keeps to itself, and closes when it is closed.

It is a duplicate, which Python shows to nobody. If its number was closed elsewhere, and is
another's by now, closing the map would close that.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import weakref
from typing import TYPE_CHECKING, Final, final

from probate.system.descriptor import OwnedDescriptor

if TYPE_CHECKING:
    from probate.system.identity import FileIdentity


_at_address: Final = ctypes.c_int.from_address


@final
class MapDescriptor:
    """The number that a map keeps, and what it referred to when it was acquired.

    Does not keep the map itself. `identity` is that of the descriptor that it was made of just now.
    """

    __slots__ = ("descriptor", "number")

    def __init__(self, native: mmap.mmap, identity: FileIdentity | None = None) -> None:
        place = _place_of(native)
        #: The number; -1 for a map without one, and where it cannot be told.
        self.number = number = -1 if place is None else place.value
        #: What it refers to; None if it is not open.
        self.descriptor: OwnedDescriptor | None = None
        asked = functools.partial(_number_of, weakref.ref(native))
        try:
            known = None if number == -1 else identity
            self.descriptor = OwnedDescriptor(number, asked, known)
        except (OSError, OverflowError):
            # It is not open.
            pass

    def let_go_if_lost(self, native: mmap.mmap) -> bool:
        """Have that map forget a number that is no longer its own; whether it had to."""
        if self.number == -1 or (self.descriptor is not None and self.descriptor.is_open):
            return False
        place = _place_of(native)
        if place is None or place.value != self.number:
            return False
        place.value = self.number = -1
        return True


def _place_of(native: mmap.mmap) -> ctypes.c_int | None:
    offset = _offset()
    return None if offset is None else _at_address(id(native) + offset)


def _number_of(reference: weakref.ref[mmap.mmap]) -> int:
    native = reference()
    place = None if native is None or native.closed else _place_of(native)
    return -1 if place is None else place.value


@functools.cache
def _offset() -> int | None:
    """Where in the object the number is: found by trying, since interpreters differ."""
    fd = os.memfd_create("probate-map", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        status = os.fstat(fd)
        with mmap.mmap(fd, mmap.PAGESIZE) as native:
            size = ctypes.sizeof(ctypes.c_int)
            for offset in range(object.__basicsize__, mmap.mmap.__basicsize__ - size + 1, size):
                number = ctypes.c_int.from_address(id(native) + offset).value
                with contextlib.suppress(OSError):
                    if number != fd and os.path.samestat(os.fstat(number), status):
                        return offset
    finally:
        os.close(fd)
    return None
