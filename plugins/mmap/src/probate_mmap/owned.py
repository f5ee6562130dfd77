"""One owned map: how it is synced, unmapped and described."""

from __future__ import annotations

import errno
import mmap
import weakref
from typing import TYPE_CHECKING, Final, final

from probate import BusyResourceError, Outcome
from probate.system import MapDescriptor
from probate_mmap import libc
from probate_mmap.memorymap import MemoryMap

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Iterator

    from probate.system import OwnedDescriptor
    from probate_mmap.backing import BackingFile
    from probate_mmap.region import Region

#: Types of map whose `close` is the interpreter's own.
_WAIT_FOR_NOBODY: Final = frozenset({mmap.mmap, MemoryMap})


@final
class OwnedMap:
    """A map, what it maps, and how its syncs went.

    `backing` is the file of a temporary map; `array` one that lies on the map, and below all
    others that do. Raises ValueError for a closed map.
    """

    __slots__ = (
        "_address",
        "_array",
        "_descriptor",
        "_failure",
        "backing",
        "is_plain",
        "may_wait",
        "native",
        "nbytes",
        "region",
        "syncing",
    )

    def __init__(
        self,
        native: mmap.mmap,
        region: Region,
        *,
        backing: BackingFile | None = None,
        array: object = None,
    ) -> None:
        self.native = native
        self.region = region
        #: Mapped bytes.
        self.nbytes = len(native)
        #: Whether giving it back may wait for a disk, or for code that is not ours.
        self.may_wait = (
            region.is_syncable or backing is not None or type(native) not in _WAIT_FOR_NOBODY
        )
        #: The one that a map made elsewhere keeps to itself.
        self._descriptor = None if isinstance(native, MemoryMap) else MapDescriptor(native)
        #: Whether giving it back is to close the native map, and nothing else.
        self.is_plain = (
            not self.may_wait
            and array is None
            and (self._descriptor is None or self._descriptor.number == -1)
        )
        #: The latest sync in the background.
        self.syncing: concurrent.futures.Future[None] | None = None
        # Now and not at each sync: asking exports the map, and a user's `close` would fail of that.
        self._address = libc.address_of(native)
        #: The file of a temporary map.
        self.backing = backing
        self._array = None if array is None else weakref.ref(array)
        #: Why some background sync went wrong. The kernel tells once: that a later sync goes
        #: well does not mean that the data is safe (fsync(2), "Errors").
        self._failure: BaseException | None = None

    def __str__(self) -> str:
        text = f"{self.region}, {self.nbytes} bytes"
        return f"{text} from offset {self.region.offset}" if self.region.offset else text

    @property
    def descriptors(self) -> Iterator[OwnedDescriptor]:
        """The numbers that giving it back closes."""
        if self._descriptor is not None and self._descriptor.descriptor is not None:
            yield self._descriptor.descriptor
        if self.backing is not None:
            yield self.backing.descriptor

    @property
    def needs_sync(self) -> bool:
        """Whether what is written to it must reach the disk before it is given back."""
        return self.region.is_syncable and self.backing is None and not self.native.closed

    # -- syncing -------------------------------------------------------------

    def sync(self) -> None:
        """Write what has changed to its file, and wait for that; other threads go on.

        Nothing to do for a private, read-only, anonymous or closed map. Raises OSError with
        path and bytes, and what a sync in the background raised before.
        """
        if self._failure is not None:
            raise self._failure
        self._write()

    def sync_in_background(self) -> None:
        """As `sync`, once more even after a failure, of which `release` will tell."""
        try:
            self._write()
        except BaseException as error:
            self._failure = self._failure or error
            raise

    def _write(self) -> None:
        if not self.region.is_syncable:
            return
        try:
            if type(self.native).flush is not mmap.mmap.flush:
                # Somebody's own class knows better what it takes.
                self.native.flush()
            else:
                self._msync()
        except OSError as error:
            if not self.native.closed:
                raise self._sync_error(error) from error

    def _msync(self) -> None:
        try:
            length = len(self.native)
        except ValueError:
            return
        if length != self.nbytes:
            # Resized, and so perhaps moved, by whoever made it.
            self._address, self.nbytes = libc.address_of(self.native), length
        try:
            libc.msync(self._address, self.nbytes)
        except OSError as error:
            # Of a good range, EINVAL says that the file has no sync: a device's memory, a
            # packet ring. There is no disk that it could reach.
            if error.errno != errno.EINVAL:
                raise

    def _sync_error(self, error: OSError) -> OSError:
        text = f"{error.strerror or error}: {self.nbytes} bytes of a shared map may not be on disk"
        if self.region.path is None:
            return OSError(error.errno, text)
        return OSError(error.errno, text, self.region.path)

    # -- giving back ---------------------------------------------------------

    def unmap(self) -> Outcome:
        """Unmap, and remove the backing file of a temporary map.

        Raises BusyResourceError, with nothing changed, while a buffer of it is exported or an
        array lies on it.
        """
        was_closed = self.native.closed
        if not was_closed and self._array is not None and self._array() is not None:
            # Closing would succeed, and the array be a SIGSEGV in waiting.
            raise self._busy()
        if self._descriptor is not None:
            # Its number may have been closed elsewhere, and be another's.
            self._descriptor.let_go_if_lost(self.native)
        try:
            self.native.close()
        except BufferError as error:
            raise self._busy() from error
        was_removed = self.backing is not None and self.backing.remove(is_mapped=False)
        return Outcome.ALREADY_GONE if was_closed and not was_removed else Outcome.RELEASED

    def release(self) -> Outcome:
        """Unmap by force, whatever its background syncs came to.

        Raises what the first of them that failed raised, with the map unmapped all the same;
        BusyResourceError, as `unmap`, with nothing but the mapping left.
        """
        # First, while the map is still there: an exported buffer must not keep a file around.
        is_mapped = not self.native.closed
        was_removed = self.backing is not None and self.backing.remove(is_mapped=is_mapped)
        outcome = self.unmap()
        if self._failure is not None:
            raise self._failure
        return Outcome.RELEASED if was_removed else outcome

    def _busy(self) -> BusyResourceError:
        text = (
            "still in use: release the memoryviews of it, and drop the arrays and other objects "
            "that lie on it"
        )
        if self._failure is not None:
            text += f"; its sync failed, too: {self._failure}"
        return BusyResourceError(text)
