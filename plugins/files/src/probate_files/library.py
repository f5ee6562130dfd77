"""Things of libraries that hold a file open, taken by what they can do: locks, and files.

A lock is acquired and released, says whether it is held, and has a path: `filelock`, `portalocker`,
`fasteners`. A file is closed, is a context manager, and has the path of a file that is there:
`h5py`, `netCDF4`, `tables`. What has a file object beneath is an `OpenFile`, and not taken here.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from pathlib import Path
from typing import Any, Final, final

from probate import BusyResourceError, Outcome
from probate_files.entry import Entry
from probate_files.layers import layers_of
from probate_files.numbers import OpenNumbers
from probate_files.openfile import FileEntry, OpenFile
from probate_files.thread import HomeThread

#: Where they have their path, and how they tell whether they are held, or open.
_PATHS_OF_LOCKS: Final = ("lock_file", "filename", "path")
_PATHS_OF_FILES: Final = ("filename", "filepath", "name")
_HELD: Final = ("is_locked", "acquired", "fh")
_OPEN: Final = ("isopen", "is_open")


def library_entry(thing: Any) -> Entry | None:
    """The entry for a lock or file of a library; None for anything else.

    Raises ValueError for a file that is closed.
    """
    kind = type(thing)
    if all(callable(getattr(kind, name, None)) for name in ("acquire", "release")):
        path = _path_of(thing, _PATHS_OF_LOCKS)
        is_taken = path and any(hasattr(thing, name) for name in _HELD)
        if not is_taken or inspect.iscoroutinefunction(kind.release):
            return None
        return LibraryLock(thing, path)
    if callable(getattr(kind, "close", None)) and hasattr(kind, "__exit__"):
        path = _path_of(thing, _PATHS_OF_FILES)
        if not (path and Path(path).is_file()) or inspect.iscoroutinefunction(kind.close):
            return None
        if not _is_open(thing):
            raise ValueError(f"a closed file cannot be adopted: {thing!r}")
        return LibraryFile(thing, path)
    return None


@final
class LibraryLock(FileEntry):
    """A lock object, held or not yet: at the end it is released if it is held.

    Some are held by a thread, as those of `filelock` are by default: no other can release them.
    """

    __slots__ = ("_file", "_home", "_native", "_numbers", "_path")

    def __init__(self, native: Any, path: str) -> None:
        self._native = native
        self._path = path
        found = OpenNumbers(path)
        self._numbers = found.locked() or found
        self._home = HomeThread()
        self._file: OpenFile | None = None

    def __repr__(self) -> str:
        return f"lock {self._path!r} ({type(self._native).__qualname__})"

    @property
    def native(self) -> object:
        """The lock."""
        return self._native

    @property
    def open_file(self) -> OpenFile | None:
        """The file object that it is on, and may have been written to, where it has one."""
        file = getattr(self._native, "fh", None)
        if file is not None and (self._file is None or self._file.file is not file):
            self._file = OpenFile(file, self._native) if layers_of(file) else None
        return self._file

    @property
    def needs_this_thread(self) -> bool:
        """Whether this thread alone can release it."""
        is_thread_local = getattr(self._native, "is_thread_local", None)
        return self._home.is_here and is_thread_local is not None and bool(is_thread_local())

    def release(self) -> Outcome:
        """Release it, as often as it was acquired.

        Raises BusyResourceError if another thread holds it, LostDataError as for a file.
        """
        file = self.open_file
        if file is not None:
            return file.release(self._end)
        outcome = self._end()
        if outcome is Outcome.RELEASED or not self._numbers.left():
            return outcome
        if not self._home.is_alive:
            # What its thread knew of them has gone with it.
            return self._numbers.close()
        ended = self._home.call(self._end)
        if ended is None:
            raise BusyResourceError(
                f"held by thread {self._home.name!r}, which alone can release it: end its owner "
                "there, or make the lock with thread_local=False"
            )
        return ended

    def _end(self) -> Outcome:
        if not _is_held(self._native):
            return Outcome.ALREADY_GONE
        if "force" in inspect.signature(self._native.release).parameters:
            self._native.release(force=True)
        else:
            while _is_held(self._native):
                self._native.release()
        return Outcome.RELEASED


@final
class LibraryFile(Entry):
    """A file that a library has open by a descriptor of its own."""

    __slots__ = ("_native", "_numbers", "_path")

    def __init__(self, native: Any, path: str) -> None:
        self._native = native
        self._path = path
        self._numbers = OpenNumbers(path)

    def __repr__(self) -> str:
        return f"file {self._path!r} ({type(self._native).__qualname__})"

    @property
    def native(self) -> object:
        """What the library has made."""
        return self._native

    def release(self) -> Outcome:
        """Have it written and closed by the library. Raises OSError, and what that raises."""
        if not _is_open(self._native):
            return Outcome.ALREADY_GONE
        self._numbers.check()
        self._native.close()
        return Outcome.RELEASED


def _path_of(thing: object, names: tuple[str, ...]) -> str:
    for name in names:
        # Whatever somebody's attribute raises, and whatever it is that is no path.
        with contextlib.suppress(Exception):
            value = getattr(thing, name, None)
            path = os.fspath(value() if callable(value) else value)  # type: ignore[arg-type]  # as above
            return os.path.abspath(os.fsdecode(path))  # noqa: PTH100  as in arguments
    return ""


def _is_held(lock: object) -> bool:
    name = next(name for name in _HELD if hasattr(lock, name))
    return bool(_value(lock, name))


def _is_open(thing: object) -> bool:
    if hasattr(thing, "closed"):
        return not _value(thing, "closed")
    for name in _OPEN:
        if hasattr(thing, name):
            return bool(_value(thing, name))
    return bool(thing) if hasattr(type(thing), "__bool__") else True


def _value(thing: object, name: str) -> object:
    value = getattr(thing, name)
    # A file object is no method, though it may be callable.
    return value() if inspect.ismethod(value) or inspect.isbuiltin(value) else value
