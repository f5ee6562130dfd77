"""The system calls of an io_uring, and the memory that it shares with the kernel (io_uring(7)).

The published package liburing is not used: its builds ask for a CPU with AVX-512 and die of
SIGILL on any other, and it holds the interpreter's lock in each call. ctypes lets go of it.

The kernel reads our tail in io_uring_enter(2) only, since no ring here has a polling thread.
That we read its tail before its entries is the order in which x86-64 loads (see `queues`).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from enum import IntEnum
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, final

from probate.system import MapDescriptor, OwnedDescriptor, built
from probate_rings.errors import IoUringUnavailableError
from probate_rings.queues import is_strongly_ordered

if TYPE_CHECKING:
    from collections.abc import Callable

# From <linux/io_uring.h>.
CANCEL_ALL: Final = 1
CANCEL_ANY: Final = 4
_OFFSET_OF_ENTRIES: Final = 0x10000000
_GET_EVENTS: Final = 1
_COMPLETIONS_OVERFLOWED: Final = 2
_SIZE_OF_PARAMS: Final = 120

#: Bytes of a submission and of a completion queue entry.
SQE_SIZE, CQE_SIZE = 64, 16

#: System calls (syscalls(2)); the same numbers on all machines but alpha.
_SETUP, _ENTER = 425, 426

#: What a refusal by io_uring_setup(2) means if it is about more than this one ring, and what
#: can be done.
_REFUSALS: Final = {
    errno.ENOSYS: (
        "this kernel, or a seccomp filter, does not have it (ENOSYS)",
        "it takes Linux 5.19 or later with CONFIG_IO_URING, and a container that lets it be",
    ),
    errno.EPERM: (
        "this process may not use it (EPERM)",
        "look at sysctl kernel.io_uring_disabled, and at the seccomp profile of the container",
    ),
}


class Opcode(IntEnum):
    """What an operation does."""

    NOP = 0
    TIMEOUT = 11
    CANCEL = 14
    READ = 22
    WRITE = 23


def pack_entry(
    opcode: Opcode,
    user_data: int,
    *,
    fd: int = -1,
    offset: int = 0,
    address: int = 0,
    length: int = 0,
    flags: int = 0,
) -> bytes:
    """Pack a submission queue entry, `struct io_uring_sqe`."""
    return struct.pack("=BBHiQQIIQ24x", opcode, 0, 0, fd, offset, address, length, flags, user_data)


@final
class KernelRing:
    """One io_uring: its descriptor, and the memory of its two queues. Not thread-safe.

    Raises IoUringUnavailableError where there is no io_uring to be had, and OSError
    (io_uring_setup(2)) for what is wrong with this one only.
    """

    def __init__(self, entries: int) -> None:
        if not is_strongly_ordered():
            raise IoUringUnavailableError(
                "it needs the memory order of x86-64 and 64-bit CPython",
                "read and write files on threads",
            )
        params = ctypes.create_string_buffer(_SIZE_OF_PARAMS)
        self.descriptor = _set_up(entries, params)
        try:
            self._map(params)
        except BaseException:
            self.descriptor.close()
            raise

    def _map(self, params: ctypes.Array[ctypes.c_char]) -> None:
        self.fd = self.descriptor.number
        entries, completions = struct.unpack_from("=II", params)
        # The offsets of the queues' fields; those of the completion queue begin at 80.
        sq_head, sq_tail, _, _, sq_flags, _, array = struct.unpack_from("=7I", params, 40)
        cq_head, cq_tail, _, _, _, cqes = struct.unpack_from("=6I", params, 80)
        size = max(array + 4 * entries, cqes + CQE_SIZE * completions)
        # Both queues are one mapping since Linux 5.4 (IORING_FEAT_SINGLE_MMAP).
        self._queues = mmap.mmap(self.fd, size, mmap.MAP_SHARED)
        self._entries = mmap.mmap(
            self.fd, SQE_SIZE * entries, mmap.MAP_SHARED, offset=_OFFSET_OF_ENTRIES
        )
        #: Those that the mappings keep to themselves.
        self._mapped = [(each, MapDescriptor(each)) for each in (self._queues, self._entries)]
        self._size: int = entries
        self._completions, self._cqes = completions, cqes
        self._words = memoryview(self._queues)[: size // 4 * 4].cast("I")
        self._sq_head, self._sq_tail, self._sq_flags = sq_head // 4, sq_tail // 4, sq_flags // 4
        self._cq_head, self._cq_tail = cq_head // 4, cq_tail // 4
        # Entry n of the queue is always number n of the array.
        for index in range(entries):
            self._words[array // 4 + index] = index
        #: How many entries were ever pushed.
        self.pushed = 0

    @property
    def descriptors(self) -> list[OwnedDescriptor]:
        """Its number, and those that the mappings keep."""
        mapped = [each.descriptor for _, each in self._mapped]
        return [self.descriptor, *(each for each in mapped if each is not None)]

    def close(self) -> None:
        """Unmap the queues and close the descriptor, each as far as it is its own still."""
        self._words.release()
        for mapping, descriptor in self._mapped:
            descriptor.let_go_if_lost(mapping)
            mapping.close()
        self.descriptor.close()

    # -- submitting ----------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many pushed entries the kernel has not taken."""
        return int(self.pushed - self._words[self._sq_head]) % 2**32

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another entry."""
        return self.waiting >= self._size

    def push(self, entry: bytes) -> None:
        """Put an entry into the submission queue, which must not be full.

        The kernel takes it at the next `enter`. `pushed` has grown if and only if it is in,
        whatever exception falls in.
        """
        start = self.pushed % self._size * SQE_SIZE
        self._entries[start : start + SQE_SIZE] = entry
        self.pushed += 1

    def enter(self) -> int:
        """Hand what was pushed to the kernel; return how many it took. Raises OSError."""
        self._words[self._sq_tail] = self.pushed % 2**32
        return _syscall(_ENTER, self.fd, self.waiting, 0, 0, 0, 0)

    # -- completing ----------------------------------------------------------

    def peek(self) -> tuple[int, int] | None:
        """Return the next completion, its user data and result; None if there is none."""
        head = self._words[self._cq_head]
        if head == self._words[self._cq_tail]:
            return None
        start = self._cqes + CQE_SIZE * (head % self._completions)
        user_data, result = struct.unpack_from("=Qi", self._queues, start)
        return user_data, result

    def advance(self) -> None:
        """Give the place of the next completion back to the kernel."""
        self._words[self._cq_head] = (self._words[self._cq_head] + 1) % 2**32

    def flush_overflow(self) -> bool:
        """Have the kernel queue completions that found no room; False if it keeps none.

        Raises OSError.
        """
        if not self._words[self._sq_flags] & _COMPLETIONS_OVERFLOWED:
            return False
        _syscall(_ENTER, self.fd, 0, 0, _GET_EVENTS, 0, 0)
        return True


def _set_up(entries: int, params: ctypes.Array[ctypes.c_char]) -> OwnedDescriptor:
    arguments = map(ctypes.c_long, (_SETUP, entries, ctypes.addressof(params)))
    set_up: Callable[[], int] = partial(_libc().syscall, *arguments)
    try:
        return built(set_up, lambda fd: OwnedDescriptor(_checked(fd)), _close_if_open)
    except OSError as error:
        if error.errno in _REFUSALS:
            raise IoUringUnavailableError(*_REFUSALS[error.errno]) from error
        raise


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(*arguments: Any) -> int:
    return _checked(_libc().syscall(*map(ctypes.c_long, arguments)))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _close_if_open(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
