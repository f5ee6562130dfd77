"""The map manager: makes memory maps that belong to a process."""

from __future__ import annotations

import contextlib
import os
import tempfile
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, final

from probate import (
    NotOwnedError,
    OwnershipTable,
    ReleaseTimeoutError,
    pid_or_current,
    runs_inline,
)
from probate.journal import Named, random_path, reclaim_path, users_of_file
from probate.system import built
from probate_mmap import memorymap
from probate_mmap.backing import BackingFile
from probate_mmap.filespan import checked_length, find_span
from probate_mmap.foreign import checked_map, find_map
from probate_mmap.lane import SyncLane
from probate_mmap.libc import address_of
from probate_mmap.owned import OwnedMap
from probate_mmap.region import Region, region_at

if TYPE_CHECKING:
    import concurrent.futures
    import mmap
    from collections.abc import Callable

    from probate import CleanupStats, Outcome, ResourceId, ResourceRecord
    from probate_mmap.memorymap import MemoryMap

_MAY_WAIT: Final = attrgetter("may_wait")
_IS_PLAIN: Final = attrgetter("is_plain")
_IS_CLOSED: Final = attrgetter("native.closed")


@final
class MmapManager:
    """Makes `mmap.mmap` objects, each owned by one process.

    Every method takes the owner's pid first; within `with manager.process(...)` it may be left
    out. Lengths and offsets are in bytes. When its owner ends, a shared writable map of a file
    is synced and then unmapped; a sync that stands still for `sync_timeout` seconds is left
    behind, with its map still owned.

    The making ones raise ProcessTerminatedError, ProcessNotFoundError or ResourceLimitExceeded
    before anything is acquired, TypeError or ValueError for bad arguments, and OSError from the
    kernel.
    """

    def __init__(self, *, sync_timeout: float = 10.0) -> None:
        if not sync_timeout > 0:
            raise ValueError(f"sync_timeout must be more than 0 seconds, got {sync_timeout!r}")
        self._sync_timeout = sync_timeout
        #: By device number; there are few devices.
        self._lanes: dict[int, SyncLane] = {}
        self.table: OwnershipTable[OwnedMap] = OwnershipTable(
            "mmap",
            self._release,
            release_many=_unmap_plain,
            describe=str,
            identity=attrgetter("native"),
            descriptors=attrgetter("descriptors"),
            repeatable=True,
        )

    # -- making --------------------------------------------------------------

    @pid_or_current
    def map_anonymous(self, pid: int, length: int, *, shared: bool = True) -> MemoryMap:
        """Map `length` bytes of zeros: shared with children forked later, or private."""
        nbytes = checked_length(length, least=1)

        def make() -> OwnedMap:
            native = memorymap.map_anonymous(nbytes, shared=shared)
            return OwnedMap(native, Region(path=None, is_shared=shared, is_anonymous=True))

        return self._acquire(pid, make, nbytes)

    @pid_or_current
    def map_file(
        self,
        pid: int,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        length: int = 0,
        shared: bool = True,
        writable: bool = True,
        offset: int = 0,
    ) -> MemoryMap:
        """Map `length` bytes of a regular file, up to its end if 0, from `offset` on.

        `offset` is a multiple of `mmap.ALLOCATIONGRANULARITY`. What is written to a shared map
        goes to the file, what is written to a private one never; the latter needs no permission
        to write. The map holds no descriptor.

        Raises ValueError if the file does not have those bytes: it is never extended.
        """
        span = find_span(path, length, offset)

        def make(fd: int) -> OwnedMap:
            native = memorymap.map_descriptor(
                fd, span.path, span.length, shared=shared, writable=writable, offset=offset
            )
            device = os.fstat(fd).st_dev
            return OwnedMap(native, Region(span.path, shared, writable, offset, device))

        making = partial(span.use, make, for_writing=shared and writable)
        return self._acquire(pid, making, span.length)

    @pid_or_current
    def map_temporary(
        self, pid: int, length: int, *, directory: str | os.PathLike[str] | None = None
    ) -> MemoryMap:
        """Map a new file of `length` zeros, at `.path` of the result, which goes with the map.

        Others may map the path meanwhile. It is made in `directory`, by default tempfile's, and
        unlinked as long as it is still this file's. Raises OSError (ENOSPC) if the disk lacks
        the room.
        """
        nbytes = checked_length(length, least=1)
        if directory is not None and not isinstance(directory, (str, os.PathLike)):
            raise TypeError(f"expected the path of a directory, got {directory!r}")
        folder = os.path.abspath(directory or tempfile.gettempdir())  # noqa: PTH100  as in filespan

        path = random_path(folder, "probate-", ".map")

        def build(backing: BackingFile) -> OwnedMap:
            native = memorymap.map_descriptor(
                backing.fileno(), backing.path, nbytes, shared=True, writable=True
            )
            return OwnedMap(native, Region(backing.path, is_shared=True), backing=backing)

        make = partial(
            built,
            partial(BackingFile, path, nbytes),
            build,
            partial(BackingFile.remove, is_mapped=False),
        )
        before = {"path": path, "is_random": True}
        named = Named(f"file of a temporary map {path}", before, _identity)
        return self._acquire(pid, make, nbytes, named)

    # -- using ---------------------------------------------------------------

    @pid_or_current
    def sync(self, pid: int, m: object) -> None:
        """Write what was written to a map of this owner to its file, and wait for that.

        `m` is the map, or an adopted numpy memmap. Nothing to do unless it is a shared writable
        map of a file. Raises OSError with the path and the bytes if it fails, NotOwnedError if
        the map is another's, ValueError if it is closed.
        """
        native = checked_map(m)
        owned = self._find(pid, native)
        if native.closed:
            raise ValueError(f"a closed map cannot be synced: {owned}")
        owned.sync()

    @pid_or_current
    def unmap(self, pid: int, m: object, *, sync: bool = True) -> None:
        """Sync and unmap a map of this owner. Idempotent.

        If it raises, the map stays mapped and owned: BusyResourceError while a buffer of it is
        exported, or an adopted memmap's array is there; OSError, as `sync`, which `sync=False`
        gets by. NotOwnedError if it is another's.
        """
        native = checked_map(m)
        try:
            if sync and (owned := self._find(pid, native)).needs_sync:
                owned.sync()
            self.table.give_back(pid, native, OwnedMap.unmap)
        except NotOwnedError as error:
            if error.owner is None and native.closed:
                return
            self._explain(pid, native, error)
            raise

    #: As in every manager.
    close = unmap

    # -- for the resource ----------------------------------------------------

    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        """Own an `mmap.mmap`, or the map under a numpy memmap or a view of one.

        Of a memmap only the map is kept, and it is BUSY until the arrays are gone: adopt the
        array then, not the map under it, which does not know of its arrays. The descriptor that
        a map made elsewhere holds is closed with it, not before. Returns None for anything
        else. Raises ValueError if it is closed.
        """
        found = find_map(resource)
        if found is None:
            return None
        native, array = found
        if native.closed:
            # Not the array's repr, which would look at what is no longer mapped.
            raise ValueError(f"a closed map cannot be adopted: {native!r}")
        owned = OwnedMap(native, region_at(address_of(native)), array=array)
        return self.table.add(pid, owned, owned.nbytes)

    def reclaim(self, record: ResourceRecord, dry_run: bool) -> Outcome:
        """Remove the file of a temporary map whose owner has died, unless somebody uses it."""
        return reclaim_path(record, dry_run, in_use=users_of_file)

    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[None]]:
        """Start syncing; the futures are done when that is."""
        if not self.may_wait(pid):
            return []
        futures = [
            self._start_sync(owned)
            for owned in reversed(self.table.resources(pid))
            if owned.may_wait
        ]
        return [future for future in futures if future is not None]

    def may_wait(self, pid: int) -> bool:
        """Whether the cleanup of `pid` may wait for a disk."""
        return any(map(_MAY_WAIT, self.table.resources(pid)))

    def cleanup(self, pid: int) -> CleanupStats:
        """Sync and unmap all maps of `pid`, newest first."""
        # Again, since their users could write to them until now.
        self.quiesce(pid)
        return self.table.cleanup(pid)

    # -- inside --------------------------------------------------------------

    def _acquire(
        self,
        pid: int,
        make: Callable[[], OwnedMap],
        nbytes: int,
        named: Named[OwnedMap] | None = None,
    ) -> MemoryMap:
        owned = self.table.acquire(pid, make, OwnedMap.release, nbytes=nbytes, named=named)
        return owned.native  # type: ignore[return-value]  # what make has made

    def _find(self, pid: int, native: mmap.mmap) -> OwnedMap:
        try:
            return self.table.get(pid, self.table.find(pid, native))
        except NotOwnedError as error:
            self._explain(pid, native, error)
            raise

    def _explain(self, pid: int, native: mmap.mmap, error: NotOwnedError) -> None:
        """Raise ProcessTerminatedError if that is why `pid` does not own a map.

        A termination takes a map out before it unmaps it.
        """
        if error.owner is None and not native.closed:
            self.table.check_admitted(pid)

    def _start_sync(self, owned: OwnedMap) -> concurrent.futures.Future[None] | None:
        """Have it synced in the background; None if there is no need, or no thread for it."""
        if not owned.needs_sync:
            return None
        latest = owned.syncing
        if latest is not None and not latest.running() and not latest.done():
            # It has yet to begin, and will see all that was written by now.
            return latest
        try:
            owned.syncing = self._lane_of(owned).submit(owned.sync_in_background)
        except RuntimeError:
            owned.syncing = None
        return owned.syncing

    def _lane_of(self, owned: OwnedMap) -> SyncLane:
        device = owned.region.device
        lane = self._lanes.get(device)
        return self._lanes.setdefault(device, SyncLane()) if lane is None else lane

    def _release(self, owned: OwnedMap) -> Outcome:
        if owned.needs_sync:
            if owned.syncing is None:
                with contextlib.suppress(OSError):
                    owned.sync_in_background()
            elif not self._lane_of(owned).wait(owned.syncing, self._sync_timeout):
                raise ReleaseTimeoutError(
                    f"its sync, or one before it on the same device, has stood still for "
                    f"{self._sync_timeout} seconds; {owned.nbytes} bytes may not be on disk"
                )
        return owned.release()


def _identity(owned: OwnedMap) -> dict[str, Any]:
    return {} if owned.backing is None else owned.backing.identity()


def _unmap_plain(maps: list[OwnedMap]) -> None:
    """Unmap all and clear the list, if that is all that any of them takes.

    Raises BufferError at one that is in use, and leaves it and those before it in the list.
    """
    if not all(map(_IS_PLAIN, maps)) or any(map(_IS_CLOSED, maps)):
        return
    try:
        for owned in reversed(maps):
            owned.native.close()
    except BaseException:
        while maps and maps[-1].native.closed:
            maps.pop()
        raise
    maps.clear()
