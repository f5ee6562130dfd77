"""The memory manager: makes memory that belongs to a process."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, final

from probate import NotOwnedError, OwnershipTable, pid_or_current
from probate.journal import (
    Named,
    reclaim_path,
    reclaim_sysv,
    sysv_named,
    users_of_file,
    with_sysv_key,
)
from probate.system import built, lazy_module
from probate_memory import sysv, sysvsegment
from probate_memory.allocation import Allocation
from probate_memory.arguments import (
    checked_id,
    checked_key,
    checked_mode,
    checked_name,
    checked_size,
    path_of,
)
from probate_memory.peaks import Peaks
from probate_memory.sysvsegment import SysvSegment

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.shared_memory import ShareableList, SharedMemory

    import sysv_ipc

    from probate import CleanupStats, Outcome, ResourceId, ResourceRecord
    from probate_memory import posixsegment, untracked
    from probate_memory.posixsegment import PosixSegment
    from probate_memory.untracked import UntrackedSharedMemory

    Memory: TypeAlias = Allocation | PosixSegment | SysvSegment
else:
    # They bring multiprocessing along, as much as the kinds that are smallest together.
    posixsegment = lazy_module("probate_memory.posixsegment")
    untracked = lazy_module("probate_memory.untracked")

M = TypeVar("M", Allocation, "PosixSegment", SysvSegment)

#: What memory is to its user, by name: whoever has such an object has imported its class.
_BLOCK: Final = ("builtins", "memoryview")
_POSIX: Final = ("multiprocessing.shared_memory", "SharedMemory")
_SYSV: Final = ("sysv_ipc", "SharedMemory")

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
        self.table: OwnershipTable[Memory] = OwnershipTable(
            "memory",
            lambda memory: memory.release(),
            describe=str,
            identity=lambda memory: memory.native,
            alias=_native_of,
            descriptors=attrgetter("descriptors"),
            repeatable=True,
        )
        self._peaks = Peaks(self.table)

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

        def make(called: str) -> PosixSegment:
            return built(
                partial(untracked.UntrackedSharedMemory, called, create=True, size=nbytes),
                partial(posixsegment.PosixSegment, is_owner=True, wipe=wipe, is_new=True),
                untracked.undo,
            )

        while True:
            called = wanted or f"{_NAME_PREFIX}{os.urandom(8).hex()}"
            before = {"path": path_of(called), "is_random": wanted is None}
            named = Named(f"shared memory {called}", before, posixsegment.PosixSegment.identity)
            try:
                return self._acquire(pid, partial(make, called), nbytes, named=named).native
            except FileExistsError:
                if wanted is not None:
                    raise

    @pid_or_current
    def open_shared_memory(self, pid: int, name: str) -> UntrackedSharedMemory:
        """Open and map a segment as a user, whoever made it. Raises FileNotFoundError.

        Its size is that of the segment. The end of `pid` unmaps it and never unlinks it.
        """
        wanted = checked_name(name)

        def make() -> PosixSegment:
            native = untracked.UntrackedSharedMemory(wanted)
            return posixsegment.PosixSegment(native, is_owner=False)

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
        native = _checked_native(shm, _POSIX)
        is_owner = _checked_role(as_owner, wipe=wipe)
        segment = posixsegment.PosixSegment(native, is_owner=is_owner, wipe=wipe)
        before = {"path": path_of(native.name)}
        named = Named(str(segment), before, posixsegment.PosixSegment.identity)
        with contextlib.ExitStack() as undo:
            undo.callback(segment.abandon)
            resource_id = self._add(pid, segment, named)
            undo.callback(self.table.release, pid, resource_id)
            segment.forget_tracking()
            undo.pop_all()
        return resource_id

    # -- SysV segments -------------------------------------------------------

    @pid_or_current
    def create_segment(
        self,
        pid: int,
        size: int,
        *,
        key: int | None = None,
        mode: int = 0o600,
        wipe: bool = False,
    ) -> sysv_ipc.SharedMemory:
        """Create a SysV segment of `size` zeros, owned by `pid`, and attach it.

        A `sysv_ipc.SharedMemory`; others attach it by its `id`, or by its `key`, which is a free
        one if none is given. Raises FileExistsError if there is one of that key. When its owner
        ends while others are attached, it is REFUSED and kept (shmctl(2), shm_nattch).
        """
        nbytes = checked_size(size)
        wanted = None if key is None else checked_key(key)
        is_random = wanted is None
        build = partial(SysvSegment, is_owner=True, wipe=wipe)
        create = partial(sysv.create, nbytes, checked_mode(mode), build, is_random=is_random)

        def acquire(key: int) -> sysv_ipc.SharedMemory:
            named = _named_segment(key, is_random=is_random)
            return self._acquire(pid, partial(create, key=key), nbytes, named=named).native

        return with_sysv_key(wanted, acquire)

    @pid_or_current
    def open_segment(self, pid: int, segment_id: int) -> sysv_ipc.SharedMemory:
        """Attach the SysV segment of that id as a user, whoever made it.

        The end of `pid` detaches it and never removes it. Raises FileNotFoundError.
        """
        return self._attach_segment(pid, partial(sysv.attach, checked_id(segment_id)))

    @pid_or_current
    def open_segment_by_key(self, pid: int, key: int) -> sysv_ipc.SharedMemory:
        """As `open_segment`, of the segment of that key."""
        wanted = checked_key(key, for_opening=True)
        return self._attach_segment(pid, partial(sysv.attach_by_key, wanted))

    @pid_or_current
    def adopt_segment(
        self, pid: int, segment: sysv_ipc.SharedMemory, *, as_owner: bool, wipe: bool = False
    ) -> ResourceId:
        """Own a `sysv_ipc.SharedMemory` made elsewhere, as owner of its segment or as user.

        Raises ValueError if it has been removed, or is a user's and not attached.
        """
        native = _checked_native(segment, _SYSV)
        is_owner = _checked_role(as_owner, wipe=wipe)
        owned = SysvSegment(native, is_owner=is_owner, wipe=wipe)
        return self._add(pid, owned, _named_segment(native.key))

    # -- giving back ---------------------------------------------------------

    @pid_or_current
    def close(self, pid: int, memory: object) -> None:
        """Give back a block, or shared memory; of its owner, the segment goes as well. Idempotent.

        What raises BusyResourceError stays owned, and a segment is as it was: while a buffer of
        it is exported or an array lies on it and, for the owner of a SysV segment, while others
        are attached. A block may have been wiped, and its own view released, by then. Raises
        NotOwnedError if it is another's, or a view of a block and not the block.
        """
        native = _checked_native(memory, _BLOCK, _POSIX, _SYSV)
        # What a transfer has brought in is seen here at the latest.
        self._peaks.note(pid)
        try:
            self.table.give_back(pid, native, lambda owned: owned.close())
        except NotOwnedError as error:
            if error.owner is None and _is_closed(native):
                return
            # A termination takes it out before it gives it back; say why.
            self.table.check_admitted(pid)
            raise

    #: The field's word for it, of what `allocate` returned.
    free = close

    @pid_or_current
    def unlink(self, pid: int, segment: object) -> None:
        """Remove a segment's name, or a SysV segment's key, and keep it mapped. Idempotent.

        Nobody finds it from then on, and the kernel takes it back with the last who has it.
        Raises RefusedResourceError to a mere user and, for SysV, while others are attached;
        NotOwnedError if it is another's.
        """
        native = _checked_native(segment, _POSIX, _SYSV)
        found = self.table.get(pid, self.table.find(pid, native))
        if not isinstance(found, Allocation):
            found.unlink()

    # -- for the resource's hooks --------------------------------------------

    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        """Own a SharedMemory, ShareableList or `sysv_ipc.SharedMemory`; None for anything else.

        The object that created its segment makes `pid` the owner, any other a user. Raises
        ValueError if it is closed, or if it created the segment, but maybe before this process
        was forked: `adopt_shared_memory` has it said.
        """
        native: Any = _native_of(resource)
        if _is_a(native, _POSIX):
            return self.adopt_shared_memory(pid, native, as_owner=posixsegment.has_created(native))
        if _is_a(native, _SYSV):
            return self.adopt_segment(pid, native, as_owner=sysvsegment.has_created(native))
        return None

    def reclaim(self, record: ResourceRecord, dry_run: bool) -> Outcome:
        """Remove a segment whose owner has died, unless somebody has it open or attached."""
        if "which" in record.identity:
            return reclaim_sysv(record, dry_run)
        return reclaim_path(record, dry_run, in_use=users_of_file)

    def cleanup(self, pid: int) -> CleanupStats:
        """Give back all memory of `pid`, newest first."""
        try:
            return self.table.cleanup(pid)
        finally:
            self._peaks.drop(pid)

    # -- inside --------------------------------------------------------------

    def _acquire(
        self, pid: int, make: Callable[[], M], nbytes: int = 0, *, named: Named[M] | None = None
    ) -> M:
        memory = self.table.acquire(pid, make, nbytes=nbytes, named=named)
        self._peaks.note(pid)
        return memory

    def _add(self, pid: int, memory: PosixSegment | SysvSegment, named: Named[Any]) -> ResourceId:
        # The end of a mere user's is not the segment's.
        its_name = named if memory.is_owner else None
        resource_id = self.table.add(pid, memory, memory.nbytes, named=its_name)
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


def _is_a(thing: object, class_: tuple[str, str]) -> bool:
    module, name = class_
    return isinstance(thing, getattr(sys.modules.get(module), name, ()))


def _native_of(resource: Any) -> object:
    is_list = _is_a(resource, ("multiprocessing.shared_memory", "ShareableList"))
    return resource.shm if is_list else resource


def _named_segment(key: int, *, is_random: bool = False) -> Named[SysvSegment]:
    description = f"SysV segment with key {key:#x}"
    return sysv_named("shm", description, key, SysvSegment.identity, is_random=is_random)


def _checked_role(as_owner: object, *, wipe: bool) -> bool:
    if not isinstance(as_owner, bool):
        raise TypeError(f"as_owner must be True or False, got {as_owner!r}")
    if wipe and not as_owner:
        raise ValueError("a mere user wipes nothing: wipe is for as_owner=True")
    return as_owner


def _checked_native(memory: object, *classes: tuple[str, str]) -> Any:
    native = _native_of(memory)
    if not any(_is_a(native, each) for each in classes):
        names = " or ".join(".".join(each) for each in classes)
        raise TypeError(f"expected a {names}, got {memory!r}")
    return native


def _is_closed(native: Any) -> bool:
    """Whether a block or a segment that nobody owns was given back before."""
    if _is_a(native, _POSIX):
        return posixsegment.is_closed(native)
    if _is_a(native, _SYSV):
        return not native.attached
    try:
        memoryview(native)
    except ValueError:
        return True
    return False
