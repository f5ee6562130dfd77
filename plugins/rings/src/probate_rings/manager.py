"""The two managers: each makes rings of its sort that belong to a process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, final

from probate import pid_or_current
from probate.system import take
from probate_rings import layout, memory, queues
from probate_rings.errors import RingFormatError
from probate_rings.layout import Geometry
from probate_rings.ringmanager import RingManager
from probate_rings.uring import IoUring, checked_entries, queue_bytes
from probate_rings.zerocopy import ZeroCopyRing

if TYPE_CHECKING:
    from probate.system import OwnedDescriptor


@final
class ZeroCopyIpc(RingManager):
    """Makes rings in shared memory, and attaches to those that others made.

    Every method takes the owner's pid first; within `with manager.process(...)` it may be left
    out. All raise ProcessTerminatedError, ProcessNotFoundError or ResourceLimitExceeded before
    anything is acquired, TypeError or ValueError for bad arguments, UnsupportedMachineError
    where memory is not ordered as on x86-64, and OSError from the kernel.
    """

    @pid_or_current
    def create_ring(self, pid: int, *, slots: int = 64, block_size: int = 4096) -> ZeroCopyRing:
        """Make a ring of `slots` blocks of `block_size` bytes, and own its owner's end.

        1 to 65536 blocks of 1 byte to 1 GiB, in a memfd whose pages are allocated now. Each
        block that is reserved is zeroed, so blocks are best no larger than messages.
        """
        geometry = Geometry.checked(slots, block_size)
        queues.check_memory_order()

        def make() -> ZeroCopyRing:
            own: list[OwnedDescriptor] = []
            try:
                take(own, memory.create, geometry.size)
                for _ in range(2):
                    take(own, memory.create_doorbell)
                return _map(own, geometry, is_owner=True)
            except BaseException:
                _close_all(own)
                raise

        return self.table.acquire(pid, make, nbytes=geometry.size)

    @pid_or_current
    def attach(self, pid: int, fds: Sequence[int]) -> ZeroCopyRing:
        """Attach to a ring by its three descriptors, and own the peer's end of it.

        `fds` is what `filenos()` of the owner's end gave, as they arrived here. They are
        duplicated and stay the caller's to close. A ring has one peer, ever; its end going
        away leaves the owner's as it is. Nothing that the descriptors say is trusted: raises
        RingFormatError for what is no ring, is not sealed, or has a peer already.
        """
        if not isinstance(fds, Sequence) or len(fds) != 3 or not all(type(fd) is int for fd in fds):
            raise TypeError(f"expected a ring's three descriptors, its filenos(), got {fds!r}")
        queues.check_memory_order()
        own: list[OwnedDescriptor] = []
        try:
            for fd in fds:
                take(own, memory.duplicate, fd)
            geometry = _inspect([each.number for each in own])
            make = partial(_map, own, geometry, is_owner=False)
            return self.table.acquire(pid, make, nbytes=geometry.size)
        except BaseException:
            # But for those that a ring has closed by then.
            _close_all(own)
            raise

    @pid_or_current
    def close(self, pid: int, ring: ZeroCopyRing) -> None:
        """Close an end that `pid` owns; idempotent.

        Raises NotOwnedError if it is another's, BusyResourceError while something made from
        its blocks is in use: then `pid` owns it still.
        """
        if not isinstance(ring, ZeroCopyRing):
            raise TypeError(f"expected a ZeroCopyRing, got {ring!r}")
        self._close(pid, ring)


@final
class IoUringManager(RingManager):
    """Makes io_uring instances.

    Every method takes the owner's pid first; within `with manager.process(...)` it may be left
    out.
    """

    @pid_or_current
    def create_ring(self, pid: int, entries: int) -> IoUring:
        """Make an io_uring of 1 to 32768 entries, rounded up to a power of two.

        As many as one likes for each process. Raises IoUringUnavailableError where the kernel
        does not have or allow it, or memory is not ordered as on x86-64; TypeError or
        ValueError for bad entries; ProcessTerminatedError, ProcessNotFoundError or
        ResourceLimitExceeded before anything is acquired; OSError from the kernel
        (io_uring_setup(2)).
        """
        rounded = checked_entries(entries)
        return self.table.acquire(pid, lambda: IoUring(rounded), nbytes=queue_bytes(rounded))

    @pid_or_current
    def close(self, pid: int, ring: IoUring) -> None:
        """Cancel, drain and close an io_uring that `pid` owns; idempotent.

        Raises NotOwnedError if it is another's, BusyResourceError if the kernel does not give
        everything back within a second: then `pid` owns it still.
        """
        if not isinstance(ring, IoUring):
            raise TypeError(f"expected an IoUring, got {ring!r}")
        self._close(pid, ring)


def _map(own: Sequence[OwnedDescriptor], geometry: Geometry, *, is_owner: bool) -> ZeroCopyRing:
    mapping = memory.map_shared(own[0].number, geometry.size)
    return ZeroCopyRing(mapping, geometry, own, is_owner=is_owner)


def _close_all(own: Sequence[OwnedDescriptor]) -> None:
    for each in own:
        each.close()


def _inspect(fds: Sequence[int]) -> Geometry:
    """Look at what somebody passed, before anything of it is used. Raises RingFormatError."""
    size = memory.checked_size(fds[0])
    for doorbell in fds[1:]:
        memory.check_doorbell(doorbell)
    if size < layout.HEADER_SIZE:
        raise RingFormatError(f"{size} bytes are too few for a ring")
    with (
        memory.map_shared(fds[0], layout.HEADER_SIZE) as page,
        memoryview(page) as view,
        view.cast("Q") as header,
    ):
        geometry = Geometry.read(header, size)
        if header[layout.PEER] != layout.ABSENT:
            raise RingFormatError("this ring has, or had, its one peer: make another ring")
    return geometry
