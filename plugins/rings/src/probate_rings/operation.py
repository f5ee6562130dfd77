"""Operations of an io_uring, and what has to stay alive until they complete."""

from __future__ import annotations

import ctypes
import math
import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate.system import checked_int
from probate_rings.kernelring import Opcode, pack_entry

if TYPE_CHECKING:
    from _typeshed import HasFileno

#: Bytes that one read(2) or write(2) moves at most.
_MAX_TRANSFER: Final = 0x7FFFF000

#: The offset that means "where the file is now" (io_uring_enter(2), IORING_FEAT_RW_CUR_POS).
_CURRENT_POSITION: Final = 2**64 - 1
_MAX_OFFSET: Final = 2**63 - 1

#: Seconds, some 68 years; more would not fit the kernel's timespec once it is added to now.
_MAX_TIMEOUT: Final = float(2**31)


@final
class Completion(NamedTuple):
    """The end of one operation."""

    #: What the call that prepared the operation returned.
    token: int
    #: As the system call of that name returns it: bytes moved, or a negative errno. A timeout
    #: that ran out has -ETIME, a cancelled operation -ECANCELED.
    result: int
    #: The buffer that was read into or written from; None if there is none.
    buffer: bytes | bytearray | None

    @property
    def error(self) -> OSError | None:
        """The exception that a negative result stands for, to raise or look at."""
        return OSError(-self.result, os.strerror(-self.result)) if self.result < 0 else None

    @property
    def data(self) -> memoryview:
        """The bytes moved, where they lie; none after an error. Raises ValueError if no buffer."""
        if self.buffer is None:
            raise ValueError(f"operation {self.token} moves no data")
        return memoryview(self.buffer)[: max(0, self.result)]


@final
class Operation:
    """One operation, from its preparation to its completion.

    Holds an export of its buffer, so that nobody can free, move or resize it: the kernel has
    nothing but its address.
    """

    __slots__ = ("_opcode", "_pin", "buffer", "entry", "token")

    def __init__(
        self,
        token: int,
        opcode: Opcode,
        pin: memoryview | None = None,
        *,
        fd: int = -1,
        offset: int = 0,
        length: int = 0,
    ) -> None:
        """`pin` is the memory that the kernel is given the address of."""
        self.token = token
        self.buffer: bytes | bytearray | None = None
        self._opcode = opcode
        self._pin = pin
        address = 0 if pin is None else _address_of(pin)
        #: What is pushed into the submission queue.
        self.entry = pack_entry(opcode, token, fd=fd, offset=offset, address=address, length=length)

    def __repr__(self) -> str:
        return f"{self._opcode.name.lower()} #{self.token}"

    @classmethod
    def read(
        cls, token: int, fd: int | HasFileno, into: int | bytearray, offset: int | None
    ) -> Operation:
        """Make a read into a bytearray, or into a new one of so many bytes.

        Raises TypeError or ValueError for what cannot be one.
        """
        if isinstance(into, int) and not isinstance(into, bool):
            into = bytearray(_checked_size(into))
        elif not isinstance(into, bytearray):
            raise TypeError(f"a read goes into a bytearray or a number of bytes, not {into!r}")
        return cls._transfer(token, Opcode.READ, fd, into, offset)

    @classmethod
    def write(
        cls, token: int, fd: int | HasFileno, data: bytes | bytearray, offset: int | None
    ) -> Operation:
        """Make a write. Raises TypeError or ValueError for what cannot be one."""
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(f"bytes or a bytearray can be written, not {data!r}")
        return cls._transfer(token, Opcode.WRITE, fd, data, offset)

    @classmethod
    def _transfer(
        cls,
        token: int,
        opcode: Opcode,
        fd: int | HasFileno,
        buffer: bytes | bytearray,
        offset: int | None,
    ) -> Operation:
        length = _checked_size(len(buffer))
        number, position = _descriptor(fd), _position(offset)
        self = cls(token, opcode, memoryview(buffer), fd=number, offset=position, length=length)
        self.buffer = buffer
        return self

    @classmethod
    def timeout(cls, token: int, seconds: float) -> Operation:
        """Make a timeout. Raises TypeError or ValueError."""
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
            raise TypeError(f"a timeout is a number of seconds, got {seconds!r}")
        if not (math.isfinite(seconds) and 0 <= seconds <= _MAX_TIMEOUT):
            raise ValueError(f"a timeout is 0 to {_MAX_TIMEOUT:.0f} seconds, got {seconds}")
        # A `struct __kernel_timespec`, and one of them.
        limit = struct.pack("=qq", int(seconds), int(seconds % 1 * 1e9))
        return cls(token, Opcode.TIMEOUT, memoryview(limit), length=1)

    def finish(self, result: int) -> Completion:
        """Let go of the buffer: the kernel is done with it."""
        if self._pin is not None:
            self._pin.release()
        return Completion(self.token, result, self.buffer)


def _address_of(memory: memoryview) -> int:
    owner = memory.obj
    if isinstance(owner, bytes):
        return ctypes.cast(ctypes.c_char_p(owner), ctypes.c_void_p).value or 0
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _checked_size(nbytes: int) -> int:
    return checked_int("the number of bytes moved", nbytes, least=1, most=_MAX_TRANSFER)


def _position(offset: int | None) -> int:
    if offset is None:
        return _CURRENT_POSITION
    return checked_int("an offset that is not None", offset, least=0, most=_MAX_OFFSET)


def _descriptor(fd: int | HasFileno) -> int:
    number = fd if isinstance(fd, int) else getattr(fd, "fileno", lambda: None)()
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"expected a file descriptor or an object that has one, got {fd!r}")
    if not 0 <= number < 2**31:
        raise ValueError(f"{number} is no open file descriptor: {fd!r}")
    return number
