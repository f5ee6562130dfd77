"""The file manager: makes files, locks and temporary things that belong to a process."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import os
import tempfile
import threading
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, final

from probate import NotOwnedError, ReleaseTimeoutError, pid_or_current, runs_inline
from probate.system import built, checked_int, forget_in_forked_child
from probate_files import arguments, fifo, flushing, polling, temporary
from probate_files.above import look_above
from probate_files.adoption import adopted_descriptor, entry_for
from probate_files.descriptor import Descriptor
from probate_files.locks import FileLock, Range
from probate_files.noted import noted
from probate_files.openfile import OpenFile, open_file_of
from probate_files.table import FileTable
from probate_files.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import CleanupStats, ResourceId
    from probate_files.entry import Entry
    from probate_files.temporary import TemporaryFile

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
TextPath = str | os.PathLike[str]

#: Seconds between two looks of a close that waits at whether its owner is still alive.
_LOOK: Final = 0.05


@final
class FileManager:
    """Makes plain file objects and descriptors, each owned by one process.

    Every method takes the owner's pid first; within `with manager.process(...)` it may be left
    out. Descriptors are ints, and are never inherited by programs that are run (PEP 446).

    All raise ProcessTerminatedError, ProcessNotFoundError or ResourceLimitExceeded before
    anything is acquired, TypeError or ValueError for bad arguments, and OSError from the kernel.
    """

    def __init__(self) -> None:
        self._files = FileTable()
        #: Who owns what.
        self.table = self._files.table
        #: Held while a lock is asked for, which never waits.
        self._taking = threading.Lock()
        forget_in_forked_child(self)

    def forget_parent(self) -> None:
        """Start with a lock that no thread of the parent holds, in a forked child."""
        self._taking = threading.Lock()

    # -- opening -------------------------------------------------------------

    @pid_or_current
    def open(
        self,
        pid: int,
        path: AnyPath,
        mode: str = "r",
        *,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Open a file as the built-in `open` does, and with its arguments.

        A FIFO whose other side nobody has opened blocks, as it always does (fifo(7)); one that
        was made by `mkfifo` here lets go when its owner ends. Raises LookupError for an unknown
        encoding or error handler.
        """
        name = arguments.checked_path(path)
        arguments.check_open(mode, buffering, encoding, errors, newline)

        opening = partial(open, name, mode, buffering, encoding, errors, newline)
        make = partial(built, opening, OpenFile, methodcaller("close"))
        return self._files.acquire(pid, make).native  # type: ignore[return-value]  # as opened

    @pid_or_current
    def open_fd(self, pid: int, path: AnyPath, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
        """Open a descriptor: `flags` and `mode` are those of open(2)."""
        name = arguments.checked_path(path)
        checked_int("flags", flags, least=0)
        checked_int("mode", mode, least=0, most=0o7777)
        return self._acquire_fd(pid, partial(os.open, name, flags | os.O_CLOEXEC, mode))

    @pid_or_current
    def open_directory(self, pid: int, path: AnyPath) -> int:
        """Open a folder, for `dir_fd=` and `os.scandir`. Raises NotADirectoryError."""
        name = arguments.checked_path(path)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return self._acquire_fd(pid, partial(os.open, name, flags))

    @pid_or_current
    def dup(self, pid: int, file: IO[Any] | int) -> int:
        """Duplicate a descriptor, or that of a file object; it may be another's (dup(2)).

        The two share the position, the flags and the locks of one open file description.
        """
        fd = arguments.descriptor_of(file)
        return self._acquire_fd(pid, partial(fcntl.fcntl, fd, fcntl.F_DUPFD_CLOEXEC, 3))

    @pid_or_current
    def memfd(self, pid: int, name: str = "probate", flags: int = 0) -> int:
        """Make a file in memory, without a path; `flags` as MFD_ALLOW_SEALING (memfd_create(2)).

        It is freed when its last descriptor and mapping are.
        """
        if not isinstance(name, str):
            raise TypeError(f"a memfd's name is a string, got {name!r}")
        checked_int("flags", flags, least=0)
        return self._acquire_fd(pid, partial(os.memfd_create, name, flags | os.MFD_CLOEXEC))

    # -- temporary things and FIFOs ------------------------------------------

    @pid_or_current
    def temporary_file(
        self,
        pid: int,
        mode: str = "w+b",
        *,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        suffix: str = "",
        prefix: str = temporary.PREFIX,
        directory: TextPath | None = None,
    ) -> IO[Any]:
        """Make a file that goes with its owner; its path is `name` of the file object.

        Readable by its user only, in `directory` or the default one (`tempfile.gettempdir`). Its
        path is unlinked even if the file was closed directly, but not once it was renamed: that
        is how a file is kept.
        """
        arguments.check_open(mode, buffering, encoding, errors, newline)
        path = arguments.temporary_path(suffix, prefix, directory)

        def make() -> TemporaryFile:
            return temporary.make_file(path, mode, buffering, encoding, errors, newline)

        named = noted("temporary file", path, is_random=True)
        return self._files.acquire(pid, make, named).native  # type: ignore[return-value]  # as opened

    @pid_or_current
    def temporary_directory(
        self,
        pid: int,
        *,
        suffix: str = "",
        prefix: str = temporary.PREFIX,
        directory: TextPath | None = None,
    ) -> Path:
        """Make a folder that goes with its owner, and with all that is in it.

        Links in it are removed, never followed. A folder that was renamed is kept.
        """
        path = arguments.temporary_path(suffix, prefix, directory)
        named = noted("temporary folder", path, is_random=True)
        entry = self._files.acquire(pid, lambda: temporary.make_folder(path), named)
        return entry.native  # type: ignore[return-value]  # the path that it was made with

    @pid_or_current
    def mkfifo(self, pid: int, path: TextPath, mode: int = 0o600) -> Path:
        """Make a FIFO, which is unlinked when its owner ends (mkfifo(3)).

        Whoever waits in open(2) for its other side then gets through, and sees end-of-file or
        EPIPE. Raises FileExistsError.
        """
        name = Path(arguments.absolute_path(path))
        checked_int("mode", mode, least=0, most=0o7777)
        named = noted("FIFO", str(name))
        return self._files.acquire(pid, lambda: fifo.make(name, mode), named).native

    # -- locks ---------------------------------------------------------------

    @pid_or_current
    def lock(
        self, pid: int, file: IO[Any] | int, *, shared: bool = False, timeout: float | None = None
    ) -> FileLock:
        """Lock a whole file against other open file descriptions (flock(2)).

        `timeout` is in seconds: None waits, 0 tries once. The file may be another's; closing it,
        and all its duplicates, ends the lock. Raises TimeoutError; ProcessTerminatedError if
        `pid` is terminated while it waits; ValueError if the file is closed; AlreadyOwnedError
        if the description, which duplicates share, holds one already.
        """
        return self._lock(pid, FileLock(file, shared=shared), timeout)

    @pid_or_current
    def lock_range(
        self,
        pid: int,
        file: IO[Any] | int,
        start: int,
        length: int,
        *,
        shared: bool = False,
        timeout: float | None = None,
    ) -> FileLock:
        """Lock bytes of a file, as lockf(3) would, but for this open file description.

        `length` bytes from `start` on; 0 is to the end, wherever that moves. Conflicts with
        lockf and F_SETLK locks of other programs too. An open file description lock (fcntl(2),
        F_OFD_SETLK): a shared one needs a readable file, an exclusive one a writable one. Waits
        and raises as `lock` does.
        """
        range_ = Range(*arguments.checked_range(start, length))
        return self._lock(pid, FileLock(file, shared=shared, range=range_), timeout)

    @pid_or_current
    def unlock(self, pid: int, lock: FileLock | IO[Any] | int) -> None:
        """Give a lock back; given a file, all locks that `pid` took through it.

        Idempotent for a lock. Raises NotOwnedError if it is another's, or the file has none.
        """
        if isinstance(lock, FileLock):
            self._give_back(pid, lock, lambda: not lock.is_held)
            return
        fd = arguments.descriptor_of(lock)
        found = [
            each
            for each in self.table.resources(pid)
            if isinstance(each, FileLock) and each.is_through(fd)
        ]
        if not found:
            raise NotOwnedError(self.table.kind, pid, f"a lock of {lock!r}")
        for each in found:
            self.unlock(pid, each)

    # -- using and giving back -----------------------------------------------

    @pid_or_current
    def flush(self, pid: int, file: IO[Any]) -> None:
        """Flush a file object of this owner. Raises NotOwnedError if it is another's."""
        if not hasattr(file, "flush"):
            raise TypeError(f"expected a file object, got {file!r}")
        self._files.find(pid, file)
        file.flush()

    @pid_or_current
    def close(
        self,
        pid: int,
        file: IO[Any] | int | FileLock | Path | tempfile.TemporaryDirectory[Any],
    ) -> None:
        """Flush and close a file object or descriptor of this owner, and end its locks.

        Waits for the reader of a full pipe, as closing it natively does, but not past the end of
        the owner: then ProcessTerminatedError is raised. LostDataError tells of buffered data
        that could not be written; it is closed all the same. Idempotent. Raises NotOwnedError if
        it is another's. A temporary file is unlinked too; a lock is given to `unlock`, a folder
        or FIFO to `remove`.
        """
        if isinstance(file, FileLock):
            self.unlock(pid, file)
        elif isinstance(file, (os.PathLike, tempfile.TemporaryDirectory)):
            self.remove(pid, file)
        elif isinstance(file, bool) or not (
            isinstance(file, int) or hasattr(file, "close") or hasattr(file, "release")
        ):
            raise TypeError(f"expected a file object or a descriptor, got {file!r}")
        else:
            self._close(pid, file)

    @pid_or_current
    def remove(self, pid: int, path: TextPath | tempfile.TemporaryDirectory[Any]) -> None:
        """Remove a temporary folder or FIFO of this owner, as its end would.

        Raises NotOwnedError if it is another's or gone already, RefusedResourceError if
        something else is in its place, OSError.
        """
        if isinstance(path, (str, os.PathLike)):
            path = Path(arguments.absolute_path(path))
        self.table.give_back(pid, self._files.find(pid, path).native)

    @pid_or_current
    def adopt_fd(self, pid: int, fd: int) -> ResourceId:
        """Own a descriptor that was made elsewhere, such as an end of `os.pipe()`.

        Raises ValueError if it is not open, or one of the host's standard streams (0, 1, 2).
        """
        return self._files.adopt(pid, adopted_descriptor(checked_int("a descriptor", fd)))

    # -- for the resource ----------------------------------------------------

    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        """Own a descriptor, file object or temporary thing made elsewhere.

        Returns None for anything else: see `probate_files.adoption`. Raises ValueError for what
        is closed and for the host's standard streams, AlreadyOwnedError.
        """
        entry = entry_for(resource)
        return None if entry is None else self._files.adopt(pid, entry)

    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[Any]]:
        """Flush; the futures are of files that may have to wait for their readers, or a disk."""
        return flushing.quiesce(self.table, pid)

    def cleanup(self, pid: int) -> CleanupStats:
        """Give back all that `pid` owns, newest first; what stands above a file before the file."""
        owned = self.table.resources(pid)
        polled_ones = polling.have_let_go(owned)
        look_above(owned)
        if not polled_ones:
            return self.table.cleanup(pid)
        return self.table.cleanup(pid, partial(polling.release, polled_ones))

    def may_block(self, pid: int) -> bool:
        """Whether a cleanup may wait for a disk, or for anybody, and another thread do it."""
        owned = self.table.resources(pid)
        if any(each.needs_this_thread for each in owned):
            return False
        return not all(each.is_in_memory for each in owned)

    # -- inside --------------------------------------------------------------

    def _acquire_fd(self, pid: int, make: Callable[[], int]) -> int:
        return self._files.acquire(pid, partial(built, make, Descriptor, os.close)).fd

    def _lock(self, pid: int, lock: FileLock, timeout: float | None) -> FileLock:
        seconds = arguments.checked_timeout(timeout)

        def take() -> FileLock:
            return wait_for(lock, pid, self._files, self._taking, seconds)

        self._files.acquire(pid, take)
        self._files.attach_lock(lock)
        return lock

    def _close(self, pid: int, file: IO[Any] | int) -> None:
        entry: Entry | None = None
        # Of a file that is closed nobody needs to be the owner.
        with contextlib.suppress(NotOwnedError):
            entry = self._files.find(pid, file)
        stream = None if entry is None else open_file_of(entry)
        if stream is not None and stream.is_stream:
            self._wait_for(pid, flushing.flush(stream))
        for lock in list(getattr(entry, "locks", ())):
            with contextlib.suppress(NotOwnedError):
                self.unlock(pid, lock)
        while True:
            try:
                self._give_back(pid, file, lambda: arguments.is_closed(file))
            except ReleaseTimeoutError:
                # Its last bytes, such as a checksum, have filled the pipe anew.
                if stream is None or stream.closing is None:
                    raise
                self._wait_for(pid, stream.closing)
            else:
                return

    def _wait_for(self, pid: int, call: concurrent.futures.Future[Any]) -> None:
        """Wait for a call in the background. Raises ProcessTerminatedError if `pid` ends first."""
        while concurrent.futures.wait([call], _LOOK).not_done:
            self.table.check_admitted(pid)

    def _give_back(self, pid: int, native: object, is_gone: Callable[[], bool]) -> None:
        try:
            self.table.give_back(pid, native, flushing.release_by_hand)
        except NotOwnedError as error:
            if error.owner is None:
                if is_gone():
                    return
                # A termination may be just about to release it.
                self.table.check_admitted(pid)
            raise
