"""POSIX shared memory, as owner or as user."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import threading
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from typing import Any, cast, final

from probate import Outcome, RefusedResourceError
from probate.journal import file_handle, known_identity
from probate.system import MapDescriptor, OwnedDescriptor, open_owned
from probate_memory import tracker
from probate_memory.arguments import HOME, path_of
from probate_memory.referrers import has_other_referrers, still_in_use
from probate_memory.untracked import UntrackedSharedMemory
from probate_memory.wiping import zeros_over


@final
class PosixSegment:
    """A SharedMemory object, and whether its owner's end is the segment's.

    An owner's knows its file handle, by which the segment can be told from a successor of the same
    name, though the object may have been closed by anybody. Where there are no handles it keeps a
    descriptor of its own: as long as that is open, the inode's number is not given to a successor.
    So it does if it is to be wiped. Raises ValueError for a closed object.

    One that `is_new` has been made just now: its numbers are not asked for again what they mean.
    """

    __slots__ = (
        "_descriptor", "_handle", "_has_freed", "_is_linked", "_is_new", "_lock", "_map_descriptor",
        "_path", "_pin", "_wipe", "descriptors", "is_owner", "native", "nbytes",
    )  # fmt: skip

    def __init__(
        self, native: SharedMemory, *, is_owner: bool, wipe: bool = False, is_new: bool = False
    ) -> None:
        # All have what the subclass declares; most are of the subclass.
        self.native: UntrackedSharedMemory = native  # type: ignore[assignment]  # as above
        mapped = self.native._mmap  # noqa: SLF001  declared there
        if mapped is None:
            raise ValueError(f"a closed shared memory cannot be owned: {native!r}")
        self.is_owner = is_owner
        #: Bytes that are its owner's; a user holds none.
        self.nbytes = native.size if is_owner else 0
        self._wipe = wipe
        self._is_new = is_new
        self._path = path_of(native.name)
        # Reentrant: a signal handler may terminate the owner while its thread closes this.
        self._lock = threading.RLock()
        #: Whether there was anything left to give back.
        self._has_freed = False
        #: The numbers that the object has, which anybody may have closed since, and reused.
        fd = self.native._fd  # noqa: SLF001  declared there
        known = self.native._identity if is_new else None  # noqa: SLF001  as above
        self._descriptor = OwnedDescriptor(fd, partial(getattr, self.native, "_fd"), known)
        # The map has a duplicate.
        self._map_descriptor = MapDescriptor(mapped, known)
        #: What the segment is, of an owner's.
        self._handle = file_handle(fd) if is_owner else None
        #: Keeps the inode's number from a successor, if it is an owner's that needs it.
        self._pin: OwnedDescriptor | None = None
        if is_owner and (wipe or self._handle is None):
            self._pin = _opened_again(fd)
        #: Whether there is a name that may be its owner's to remove.
        self._is_linked = is_owner
        #: The numbers that giving it back closes.
        self.descriptors: tuple[OwnedDescriptor, ...] = tuple(
            filter(None, (self._descriptor, self._map_descriptor.descriptor, self._pin))
        )

    def __str__(self) -> str:
        role = "owner" if self.is_owner else "user"
        return f"shared memory {self.native.name}, {self.native.size} bytes, {role}"

    def identity(self) -> dict[str, Any]:
        """What tells the segment from a later one of its name, for the journal. Raises OSError."""
        if self._is_new:
            # Whoever makes a file is its owner (open(2)).
            return known_identity(self._path, self._handle, os.geteuid())
        status: os.stat_result | None = None
        with contextlib.suppress(OSError):
            status = os.fstat(self._descriptor.number)
        if status is None or not self._is_of(status):
            # Its number was closed elsewhere.
            status = os.lstat(self._path)
        return known_identity(self._path, self._handle, status.st_uid)

    def forget_tracking(self) -> None:
        """Keep the interpreter's tracker from the segment, now and at its unlinking.

        The object becomes an UntrackedSharedMemory, unless it is of a class of somebody's own.
        """
        native: Any = self.native
        if isinstance(native, UntrackedSharedMemory):
            return
        # Python 3.13 has `track=False`; before, all are tracked.
        if getattr(native, "_track", True):
            tracker.forget(native.name, native._fd)  # noqa: SLF001  declared in the subclass
        if type(native) is SharedMemory:
            # Else its own unlink() would tell the tracker a second time, and its pickle would
            # be tracked on the other side.
            native.__class__ = UntrackedSharedMemory
            self.native._identity = self._descriptor.identity  # noqa: SLF001  declared there

    def abandon(self) -> None:
        """Leave the object to whoever offered it: it could not be owned."""
        with self._lock:
            self._unpin()

    # -- giving back ---------------------------------------------------------

    def close(self) -> Outcome:
        """Unmap it; if it is its owner's, wipe it if asked for, and remove the name.

        Raises BusyResourceError, with the segment as it was, while a buffer of it is exported or
        an array lies on it.
        """
        with self._lock:
            self._unmap()
            return self.release()

    def release(self) -> Outcome:
        """As `close`, by force: of what is busy, nothing but the mapping is left."""
        with self._lock:
            try:
                self._end_segment()
            finally:
                self._unpin()
                self._close_descriptor()
                self._unmap()
            return Outcome.RELEASED if self._has_freed else Outcome.ALREADY_GONE

    def unlink(self) -> None:
        """Remove the name, and keep the mapping. Raises RefusedResourceError to a mere user."""
        with self._lock:
            if not self.is_owner:
                raise RefusedResourceError(f"{self}: attached only, so it is its owner's to unlink")
            if self._is_linked:
                self._unlink()

    # -- steps; the lock is held ---------------------------------------------

    def _end_segment(self) -> None:
        if not self._is_linked:
            return
        try:
            if self._wipe and self._pin is not None:
                self._write_zeros(self._pin)
                self._wipe = False
        finally:
            self._unlink()

    def _write_zeros(self, pin: OwnedDescriptor) -> None:
        if pin.is_ours:
            _wipe(pin.number)
            return
        # Its number was closed elsewhere, and is another's, which is not to be overwritten.
        fd = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not self._is_at(fd):
                raise OSError(errno.EBADF, "not wiped: its descriptors and its name are another's")
            _wipe(fd)
        finally:
            os.close(fd)

    def _unlink(self) -> None:
        """Remove the name if it still is this segment's.

        Looking and removing are two steps: who takes the name in between must have unlinked
        what is ours first.
        """
        try:
            if self._is_at(self._path):
                os.unlink(self._path)  # noqa: PTH108  a path as the kernel has it
                self._has_freed = True
        except FileNotFoundError:
            pass

    def _is_at(self, file: int | str) -> bool:
        """Tell whether a number or a path is the segment's. Raises OSError."""
        if self._handle is not None:
            return file_handle(file) == self._handle
        return self._is_of(os.fstat(file) if isinstance(file, int) else os.lstat(file))

    def _is_of(self, status: os.stat_result) -> bool:
        return (status.st_dev, status.st_ino) == self._descriptor.identity[:2]

    def _unmap(self) -> None:
        """Close the object. Raises BusyResourceError."""
        native = self.native
        # No variable, which would count as one that uses it.
        if native._mmap is None:  # noqa: SLF001  declared in UntrackedSharedMemory
            return
        try:
            if native._buf is not None:  # noqa: SLF001  declared in UntrackedSharedMemory
                native._buf.release()  # noqa: SLF001  as above
            if has_other_referrers(native, "_mmap"):
                raise still_in_use()
            self._map_descriptor.let_go_if_lost(native._mmap)  # noqa: SLF001  as above
            self._let_go_of_descriptor()
            native.close()
        except BufferError as error:
            raise still_in_use() from error
        self._has_freed = True

    def _let_go_of_descriptor(self) -> None:
        """Have the object forget its number if that is another's by now."""
        if not self._descriptor.is_open:
            self.native._fd = -1  # noqa: SLF001  declared in UntrackedSharedMemory

    def _close_descriptor(self) -> None:
        """Close the object's descriptor, which it would keep if it is busy (cpython#115635)."""
        self._descriptor.close()
        self.native._fd = -1  # noqa: SLF001  declared in UntrackedSharedMemory

    def _unpin(self) -> None:
        self._is_linked = False
        if self._pin is not None:
            self._pin.close()


def is_closed(native: SharedMemory) -> bool:
    """Whether the object maps its segment no longer."""
    return cast("UntrackedSharedMemory", native)._mmap is None  # noqa: SLF001  declared there


def has_created(native: SharedMemory) -> bool:
    """Whether the object is the one that created its segment.

    Raises ValueError if it did, but maybe in the parent of this forked process: who adopts it
    has to say whether it is the owner.
    """
    flags = cast("UntrackedSharedMemory", native)._flags  # noqa: SLF001  declared there
    if not flags & os.O_EXCL:
        return False
    if os.getpid() != HOME or multiprocessing.parent_process() is not None:
        raise ValueError(
            f"{native!r} may have been created by the parent of this process, whose it is then: "
            "say by adopt_shared_memory(pid, shm, as_owner=True) or as_owner=False"
        )
    return True


def _opened_again(fd: int) -> OwnedDescriptor:
    """Open the file behind a descriptor once more, with an offset and locks of its own."""
    again = partial(os.open, f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    try:
        return open_owned(again)
    except OSError:
        # Its mode may forbid by now what was open before (proc(5)).
        return open_owned(partial(os.dup, fd))


def _wipe(fd: int) -> None:
    """Write zeros over a file, except where it has holes, which have no pages (lseek(2))."""
    end = 0
    try:
        while True:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
            for offset, zeros in zeros_over(start, end):
                os.pwrite(fd, zeros, offset)
    except OSError as error:
        # No data from there on.
        if error.errno != errno.ENXIO:
            raise
