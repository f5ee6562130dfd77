"""The memory manager: makes memory that belongs to a process."""

from __future__ import annotations

import contextlib
import secrets
from multiprocessing.shared_memory import ShareableList, SharedMemory
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import sysv_ipc

from probate import NotOwnedError, OwnershipTable, pid_or_current
from probate_memory import posixsegment, sysv, sysvsegment
from probate_memory.allocation import Allocation
from probate_memory.arguments import (
    checked_id,
    checked_key,
    checked_mode,
    checked_name,
    checked_size,
)
from probate_memory.peaks import Peaks
from probate_memory.posixsegment import PosixSegment
from probate_memory.sysvsegment import SysvSegment
from probate_memory.untracked import UntrackedSharedMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import CleanupStats, Outcome, ResourceId, ResourceUsage

Memory = Allocation | PosixSegment | SysvSegment
M = TypeVar("M", Allocation, PosixSegment, SysvSegment)

#: What names of segments begin with where none was asked for: /dev/shm tells whose they are.
_NAME_PREFIX: Final = "probate-"


@final
class MemoryManager:
    """Makes private memory, POSIX shared memory and SysV segments, each owned by one process.

    Every method takes the owner's pid first; within `with manager.process(...)` it may be left
    out. Sizes are in bytes. Of shared memory a process is the owner, whose end is the
    segment's, or a user, whose end never is; a user holds no bytes. With `wipe`, zeros are
    written over it before it is given back, whoever still looks on.

    The making ones raise ProcessTerminatedError, ProcessNotFoundError or ResourceLimitExceeded
    before anything is acquired, TypeError or ValueError for bad arguments, and OSError from the
    kernel.
    """

    def __init__(self) -> None:
        self._table: OwnershipTable[Memory] = OwnershipTable(
            "memory", describe=str, identity=_identity, alias=_native_of
        )
        #: Whether `pid` owns any memory: the table's own word.
        self.owns_any: Callable[[int], bool] = self._table.__contains__
        self._peaks = Peaks(self._table)

    # -- private memory ------------------------------------------------------

    @pid_or_current
    def allocate(self, pid: int, nbytes: int, *, wipe: bool = False) -> memoryview:
        """Allocate `nbytes` zeros: a writable memoryview of unsigned bytes, one-dimensional.

        When its owner ends, it and all that was made of it raise ValueError on use. Put arrays
        on it with `np.frombuffer`, which makes it BUSY, and cast with `block.cast(...)`.
        """
        size = checked_size(nbytes)
        allocation = self._acquire(pid, lambda: Allocation(size, wipe=wipe), size)
        return allocation.native

    @pid_or_current
    def free(self, pid: int, block: memoryview) -> None:
        """Give back what `allocate` returned. Idempotent.

        If it raises, it stays owned: BusyResourceError while a buffer of it is exported or an
        array lies on it; `block` itself may be released by then, and the bytes be wiped if they
        were to be. NotOwnedError if it is another's, or a view of a block and not the block.
        """
        if not isinstance(block, memoryview):
            raise TypeError(f"expected a block from allocate(), got {block!r}")
        self._close(pid, block, is_closed=_is_released(block))

    @pid_or_current
    def peak(self, pid: int) -> int:
        """The most bytes that `pid` has held at a time, as seen after each acquisition.

        0 once it has ended, and after its cleanup.
        """
        return self._peaks.of(pid)

    # -- POSIX shared memory -------------------------------------------------

    @pid_or_current
    def create_shared_memory(
        self, pid: int, name: str | None = None, *, size: int, wipe: bool = False
    ) -> UntrackedSharedMemory:
        """Create a segment of `size` zeros, owned by `pid`; without a name, a free one is found.

        It is in /dev/shm (shm_overview(7)), open to this user only. Raises FileExistsError.
        """
        wanted = None if name is None else checked_name(name)
        nbytes = checked_size(size)

        def make() -> PosixSegment:
            native = _created(wanted, nbytes)
            try:
                return PosixSegment(native, is_owner=True, wipe=wipe)
            except BaseException:
                native.close()
                native.unlink()
                raise

        return self._acquire(pid, make, nbytes).native

    @pid_or_current
    def attach_shared_memory(self, pid: int, name: str) -> UntrackedSharedMemory:
        """Attach a segment as a user, whoever made it. Raises FileNotFoundError.

        Its size is that of the segment. The end of `pid` unmaps it and never unlinks it.
        """
        wanted = checked_name(name)

        def make() -> PosixSegment:
            return PosixSegment(UntrackedSharedMemory(wanted), is_owner=False)

        return self._acquire(pid, make).native

    @pid_or_current
    def adopt_shared_memory(
        self,
        pid: int,
        shm: SharedMemory | ShareableList[Any],
        *,
        as_owner: bool,
        wipe: bool = False,
    ) -> ResourceId:
        """Own a SharedMemory made elsewhere, as owner of its segment or as user.

        The interpreter's resource tracker forgets the segment, and the object becomes an
        UntrackedSharedMemory. Of a ShareableList, its `shm` is adopted, and to be closed and
        transferred. Raises ValueError if it is closed, AlreadyOwnedError.
        """
        native = shm.shm if isinstance(shm, ShareableList) else shm
        if not isinstance(native, SharedMemory):
            raise TypeError(f"expected a SharedMemory or a ShareableList, got {shm!r}")
        segment = PosixSegment(native, is_owner=_checked_role(as_owner, wipe=wipe), wipe=wipe)
        try:
            resource_id = self._add(pid, segment)
        except BaseException:
            segment.abandon()
            raise
        try:
            segment.forget_tracking()
        except BaseException:
            with contextlib.suppress(NotOwnedError):
                self._table.release(pid, resource_id)
            segment.abandon()
            raise
        return resource_id

    # -- SysV segments -------------------------------------------------------

    @pid_or_current
    def create_segment(
        self,
        pid: int,
        size: int,
        key: int | None = None,
        mode: int = 0o600,
        *,
        wipe: bool = False,
    ) -> sysv_ipc.SharedMemory:
        """Create a SysV segment of `size` zeros, owned by `pid`, and attach it.

        A `sysv_ipc.SharedMemory`; others attach it by its `id`, or by its `key`, which is a free
        one if none is given. Raises FileExistsError if there is one of that key. When its owner
        ends while others are attached, it is REFUSED and kept (shmctl(2), shm_nattch).
        """
        nbytes = checked_size(size)
        wanted = None if key is None else checked_key(key)
        bits = checked_mode(mode)

        def make() -> SysvSegment:
            native = sysv.create(nbytes, wanted, bits)
            try:
                return SysvSegment(native, is_owner=True, wipe=wipe)
            except BaseException:
                native.detach()
                native.remove()
                raise

        return self._acquire(pid, make, nbytes).native

    @pid_or_current
    def attach_segment(self, pid: int, segment_id: int) -> sysv_ipc.SharedMemory:
        """Attach the SysV segment of that id as a user. Raises FileNotFoundError."""
        checked = checked_id(segment_id)
        return self._attach_segment(pid, lambda: sysv.attach(checked))

    @pid_or_current
    def attach_segment_by_key(self, pid: int, key: int) -> sysv_ipc.SharedMemory:
        """Attach the SysV segment of that key as a user. Raises FileNotFoundError."""
        checked = checked_key(key, for_attaching=True)
        return self._attach_segment(pid, lambda: sysv.attach_by_key(checked))

    @pid_or_current
    def adopt_segment(
        self, pid: int, segment: sysv_ipc.SharedMemory, *, as_owner: bool, wipe: bool = False
    ) -> ResourceId:
        """Own a `sysv_ipc.SharedMemory` made elsewhere, as owner of its segment or as user.

        Raises ValueError if it has been removed, or is a user's and not attached.
        """
        if not isinstance(segment, sysv_ipc.SharedMemory):
            raise TypeError(f"expected a sysv_ipc.SharedMemory, got {segment!r}")
        is_owner = _checked_role(as_owner, wipe=wipe)
        return self._add(pid, SysvSegment(segment, is_owner=is_owner, wipe=wipe))

    # -- giving back ---------------------------------------------------------

    @pid_or_current
    def close(self, pid: int, segment: object) -> None:
        """Unmap shared memory of this process; if it is the owner, remove the segment. Idempotent.

        If it raises, the segment is as it was: BusyResourceError while a buffer of it is
        exported or an array lies on it; for SysV, RefusedResourceError to the owner while others
        are attached; NotOwnedError if it is another's.
        """
        native = _checked_segment(segment)
        self._close(pid, native, is_closed=_is_detached(native))

    @pid_or_current
    def unlink(self, pid: int, segment: object) -> None:
        """Remove a segment's name, or a SysV segment's key, and keep it mapped. Idempotent.

        Nobody finds it from then on, and the kernel takes it back with the last who has it.
        Raises RefusedResourceError to a mere user and, for SysV, while others are attached;
        NotOwnedError if it is another's.
        """
        native = _checked_segment(segment)
        found = self._table.get(pid, self._table.find(pid, native))
        if not isinstance(found, Allocation):
            found.unlink()

    # -- settling, for the resource ------------------------------------------

    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        """Own a SharedMemory, ShareableList or `sysv_ipc.SharedMemory`; None for anything else.

        The object that created its segment makes `pid` the owner, any other a user. Raises
        ValueError if it is closed, or if it created the segment, but maybe before this process
        was forked: `adopt_shared_memory` has it said.
        """
        if isinstance(resource, (SharedMemory, ShareableList)):
            native = resource.shm if isinstance(resource, ShareableList) else resource
            is_owner = posixsegment.has_created(native)
            return self.adopt_shared_memory(pid, native, as_owner=is_owner)
        if isinstance(resource, sysv_ipc.SharedMemory):
            return self.adopt_segment(pid, resource, as_owner=sysvsegment.has_created(resource))
        return None

    def cleanup(self, pid: int) -> CleanupStats:
        """Give back all memory of `pid`, newest first."""
        try:
            return self._table.cleanup(pid, _release)
        finally:
            self._peaks.drop(pid)

    def usage(self, pid: int) -> ResourceUsage:
        """The memory of `pid`."""
        return self._table.usage(pid)

    # -- inside --------------------------------------------------------------

    def _acquire(self, pid: int, make: Callable[[], M], nbytes: int = 0) -> M:
        memory = self._table.acquire(pid, make, _release, nbytes)
        self._peaks.note(pid)
        return memory  # type: ignore[return-value]  # what make has made

    def _add(self, pid: int, memory: Memory) -> ResourceId:
        resource_id = self._table.add(pid, memory, memory.nbytes)
        self._peaks.note(pid)
        return resource_id

    def _attach_segment(
        self, pid: int, attach: Callable[[], sysv_ipc.SharedMemory]
    ) -> sysv_ipc.SharedMemory:
        def make() -> SysvSegment:
            native = attach()
            try:
                return SysvSegment(native, is_owner=False)
            except BaseException:
                native.detach()
                raise

        return self._acquire(pid, make).native

    def _close(self, pid: int, native: object, *, is_closed: bool) -> None:
        try:
            memory = self._table.get(pid, self._table.find(pid, native))
        except NotOwnedError as error:
            if error.owner is None and is_closed:
                return
            # A termination takes it out before it gives it back; say why.
            self._table.check_admitted(pid)
            raise
        # What a transfer has brought in is seen here at the latest.
        self._peaks.note(pid)
        # Closed first: a cleanup at the same time finds it closed, and a failure finds it owned.
        memory.close()
        with contextlib.suppress(NotOwnedError):
            self._table.release(pid, self._table.find(pid, native))


def _release(memory: Memory) -> Outcome:
    return memory.release()


def _identity(memory: Memory) -> object:
    return memory.native


def _native_of(resource: object) -> object:
    return resource.shm if isinstance(resource, ShareableList) else resource


def _created(name: str | None, size: int) -> UntrackedSharedMemory:
    if name is not None:
        return UntrackedSharedMemory(name, create=True, size=size)
    while True:
        with contextlib.suppress(FileExistsError):
            found = f"{_NAME_PREFIX}{secrets.token_hex(8)}"
            return UntrackedSharedMemory(found, create=True, size=size)


def _checked_role(as_owner: object, *, wipe: bool) -> bool:
    if not isinstance(as_owner, bool):
        raise TypeError(f"as_owner must be True or False, got {as_owner!r}")
    if wipe and not as_owner:
        raise ValueError("a mere user wipes nothing: wipe is for as_owner=True")
    return as_owner


def _checked_segment(segment: object) -> SharedMemory | sysv_ipc.SharedMemory:
    if isinstance(segment, ShareableList):
        return segment.shm
    if isinstance(segment, (SharedMemory, sysv_ipc.SharedMemory)):
        return segment
    raise TypeError(f"expected a SharedMemory or a sysv_ipc.SharedMemory, got {segment!r}")


def _is_detached(native: SharedMemory | sysv_ipc.SharedMemory) -> bool:
    if isinstance(native, SharedMemory):
        return posixsegment.is_closed(native)
    return not native.attached


def _is_released(block: memoryview) -> bool:
    try:
        return block.nbytes < 0
    except ValueError:
        return True
