"""As much of the liburing package as is used here, over the bare system calls (io_uring(7)).

Published builds of that package ask for a CPU with AVX-512, and die of SIGILL on any other.
There, this stands in for them. The kernel reads our tail in io_uring_enter only, since no ring
here has a polling thread; that we read its tail before its entries is the order in which
x86-64 loads. `binding.load` uses it on no other machine.
"""

# ruff: noqa: D102  the calls are the C library's, described in its own man pages

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from functools import cache
from typing import Any, Final, final

# From <linux/io_uring.h>.
IORING_ASYNC_CANCEL_ALL: Final = 1
IORING_ASYNC_CANCEL_ANY: Final = 4
_OFF_SQES: Final = 0x10000000
_NOP, _TIMEOUT, _ASYNC_CANCEL, _READ, _WRITE = 0, 11, 14, 22, 23
_GETEVENTS: Final = 1
_CQ_OVERFLOW: Final = 2

#: System calls on x86-64 (syscalls(2)).
_SETUP, _ENTER = 425, 426


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(*arguments: Any) -> int:
    result: int = _libc().syscall(*[ctypes.c_long(argument) for argument in arguments])
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@final
class Ring:
    """`struct io_uring`: the three mappings, and where in them the counters lie."""

    def __init__(self) -> None:
        self.ring_fd = -1
        self.queues: Any = None
        self.sqes: Any = None
        self.words: Any = None
        self.sq: tuple[int, ...] = ()
        self.cq: tuple[int, ...] = ()
        #: The tail that `io_uring_submit` has yet to publish.
        self.sqe_tail = 0


@final
class Entry:
    """`struct io_uring_cqe`."""

    def __init__(self, user_data: int, res: int) -> None:
        self.user_data = user_data
        self._res = res

    @property
    def res(self) -> int:
        if self._res < 0:
            raise OSError(-self._res, os.strerror(-self._res))
        return self._res


@final
class Cqe:
    """`struct io_uring_cqe *`."""

    entry: Entry

    def __getitem__(self, index: int) -> Entry:
        if index:
            raise IndexError(index)
        return self.entry


@final
class Sqe:
    """`struct io_uring_sqe`."""

    def __init__(self, ring: Ring, offset: int) -> None:
        self._ring = ring
        self._offset = offset

    def prepare(
        self, opcode: int, fd: int, off: int, addr: int, length: int, flags: int = 0
    ) -> None:
        struct.pack_into(
            "=BBHiQQII", self._ring.sqes, self._offset, opcode, 0, 0, fd, off, addr, length, flags
        )
        struct.pack_into("=4Q", self._ring.sqes, self._offset + 32, 0, 0, 0, 0)

    @property
    def user_data(self) -> int:
        return int(struct.unpack_from("=Q", self._ring.sqes, self._offset + 32)[0])

    @user_data.setter
    def user_data(self, value: int) -> None:
        struct.pack_into("=Q", self._ring.sqes, self._offset + 32, value)


def timespec(seconds: float) -> Any:
    """`struct __kernel_timespec` of so many seconds."""
    return ctypes.create_string_buffer(struct.pack("=qq", int(seconds), int(seconds % 1 * 1e9)))


def io_uring_queue_init(entries: int, ring: Ring, flags: int) -> int:
    """Set a ring up, and map its queues. Raises OSError."""
    # struct io_uring_params: flags at 8, the offsets of both queues' fields at 40 and 80.
    params = ctypes.create_string_buffer(120)
    struct.pack_into("=I", params, 8, flags)
    ring.ring_fd = _syscall(_SETUP, entries, ctypes.addressof(params))
    sq_entries, cq_entries = struct.unpack_from("=II", params)
    ring.sq = struct.unpack_from("=7I", params, 40)
    ring.cq = struct.unpack_from("=7I", params, 80)
    size = max(ring.sq[6] + 4 * sq_entries, ring.cq[5] + 16 * cq_entries)
    try:
        # Both queues are one mapping since Linux 5.4 (IORING_FEAT_SINGLE_MMAP).
        ring.queues = mmap.mmap(ring.ring_fd, size, mmap.MAP_SHARED)
        ring.sqes = mmap.mmap(ring.ring_fd, 64 * sq_entries, mmap.MAP_SHARED, offset=_OFF_SQES)
    except BaseException:
        os.close(ring.ring_fd)
        raise
    ring.words = memoryview(ring.queues)[: size // 4 * 4].cast("I")
    return 0


def io_uring_queue_exit(ring: Ring) -> None:
    """Unmap the queues and close the ring."""
    ring.words.release()
    ring.queues.close()
    ring.sqes.close()
    os.close(ring.ring_fd)
    ring.ring_fd = -1


def _sq(ring: Ring, which: int) -> int:
    return int(ring.words[ring.sq[which] // 4])


def _cq(ring: Ring, which: int) -> int:
    return int(ring.words[ring.cq[which] // 4])


def io_uring_sq_ready(ring: Ring) -> int:
    """Entries that the kernel has not taken."""
    return (ring.sqe_tail - _sq(ring, 0)) % 2**32


def io_uring_sq_space_left(ring: Ring) -> int:
    """Entries that are free."""
    return _sq(ring, 3) - io_uring_sq_ready(ring)


def io_uring_get_sqe(ring: Ring) -> Sqe | None:
    """The next free entry, None if there is none."""
    if not io_uring_sq_space_left(ring):
        return None
    index = ring.sqe_tail & _sq(ring, 2)
    ring.words[ring.sq[6] // 4 + index] = index
    ring.sqe_tail = (ring.sqe_tail + 1) % 2**32
    return Sqe(ring, index * 64)


def io_uring_submit(ring: Ring) -> int:
    """Hand entries to the kernel; how many it took. Raises OSError."""
    ring.words[ring.sq[1] // 4] = ring.sqe_tail
    return _syscall(_ENTER, ring.ring_fd, io_uring_sq_ready(ring), 0, 0, 0, 0)


def io_uring_get_events(ring: Ring) -> int:
    """Have the kernel flush completions that overflowed. Raises OSError."""
    return _syscall(_ENTER, ring.ring_fd, 0, 0, _GETEVENTS, 0, 0)


def io_uring_cq_ready(ring: Ring) -> int:
    """Completions that wait to be seen."""
    return (_cq(ring, 1) - _cq(ring, 0)) % 2**32


def io_uring_cq_has_overflow(ring: Ring) -> bool:
    """Whether completions wait in the kernel, for room in the queue."""
    return bool(_sq(ring, 4) & _CQ_OVERFLOW)


def io_uring_peek_cqe(ring: Ring, cqe: Cqe) -> int:
    """Look at the next completion. Raises BlockingIOError if there is none."""
    if not io_uring_cq_ready(ring):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    at = ring.cq[5] + 16 * (_cq(ring, 0) & _cq(ring, 2))
    cqe.entry = Entry(*struct.unpack_from("=Qi", ring.queues, at))
    return 0


def io_uring_cqe_seen(ring: Ring, _entry: Entry) -> None:
    """Give its place back to the kernel."""
    ring.words[ring.cq[0] // 4] = (_cq(ring, 0) + 1) % 2**32


def io_uring_prep_nop(sqe: Sqe) -> None:
    """Prepare to do nothing."""
    sqe.prepare(_NOP, -1, 0, 0, 0)


def io_uring_prep_read(sqe: Sqe, fd: int, buffer: bytearray, offset: int) -> None:
    """Prepare a read; the buffer is the caller's to keep alive."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if buffer else 0
    sqe.prepare(_READ, fd, offset, address, len(buffer))


def io_uring_prep_write(sqe: Sqe, fd: int, data: bytes | bytearray, offset: int) -> None:
    """Prepare a write; the data is the caller's to keep alive."""
    if isinstance(data, bytes):
        address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    else:
        address = ctypes.addressof(ctypes.c_char.from_buffer(data)) if data else 0
    sqe.prepare(_WRITE, fd, offset, address, len(data))


def io_uring_prep_timeout(sqe: Sqe, limit: Any, count: int, flags: int) -> None:
    """Prepare a timeout; `limit` is the caller's to keep alive."""
    sqe.prepare(_TIMEOUT, -1, count, ctypes.addressof(limit), 1, flags)


def io_uring_prep_cancel64(sqe: Sqe, user_data: int, flags: int) -> None:
    """Prepare a cancellation."""
    sqe.prepare(_ASYNC_CANCEL, -1, 0, user_data, 0, flags)
