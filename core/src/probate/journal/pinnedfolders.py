"""PinnedFolders: the folders that things are removed from, each looked at once.

Each is opened without following links (openat2(2)), compared with what the records say of it, and
has one quarantine, until all are let go of.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self, final

from probate.errors import RefusedResourceError
from probate.journal.handles import file_handle
from probate.journal.mounts import has_file_system_gone
from probate.journal.quarantine import Quarantine
from probate.system.clib import last_error, libc

if TYPE_CHECKING:
    from collections.abc import Mapping

#: include/uapi/linux/openat2.h; the number is the same on all architectures.
_SYS_OPENAT2: Final = 437
_NO_XDEV: Final = 0x01
_NO_LINKS: Final = 0x02 | 0x04  # RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS
_BENEATH: Final = 0x08

_CURRENT_FOLDER: Final = -100

_PATH_ONLY: Final = os.O_PATH | os.O_CLOEXEC

#: `struct open_how`: of a folder, and of what is in it.
_FOLDER: Final = struct.pack("QQQ", _PATH_ONLY | os.O_DIRECTORY, 0, _NO_LINKS)
_BELOW: Final = struct.pack("QQQ", _PATH_ONLY | os.O_NOFOLLOW, 0, _BENEATH | _NO_XDEV)

#: What it means that a path cannot be opened so.
_PROBLEMS: Final = {
    errno.ELOOP: "a link is in the way to it by now",
    errno.EXDEV: "something is mounted over it by now",
}

#: How many stay pinned at a time: most hosts make things in one or two.
_MOST_PINNED: Final = 16

#: What a folder, and its file system, are compared with: of the identity in a record.
_COMPARED: Final = ("folder", "file_system", "in_memory", "boot", "mount_namespace")


def quarantine_names(identity: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the names that a record says: of the quarantine, and of its thing in there."""
    name, _, to = (identity.get("quarantine") or "").partition("/")
    return name or None, to or None


@final
class PinnedFolder(NamedTuple):
    """A folder that things are removed from."""

    #: All of a record that it was compared with.
    key: tuple[object, ...]
    number: int
    quarantine: Quarantine

    def pin(self, name: str) -> int:
        """Pin what is in it under a name, which may be a link; return its descriptor.

        Raises RefusedResourceError if something is mounted there; OSError.
        """
        return _openat2(self.number, name, _BELOW)

    def close(self) -> None:
        """Remove the quarantine, and let go of the folder."""
        self.quarantine.close()
        os.close(self.number)


@final
class PinnedFolders:
    """The folders that one thread removes things from, each with its quarantine.

    Within a `with` block they stay pinned from one `reclaim_path` to the next, so that each is
    looked at once, and has one quarantine. Nothing is found in them by their paths again: wherever
    they are moved meanwhile, they are the folders of the records.
    """

    _threads: ClassVar = threading.local()

    def __init__(self) -> None:
        self._folders: dict[tuple[object, ...], PinnedFolder] = {}
        self._depth = 0

    @classmethod
    def of_this_thread(cls) -> PinnedFolders:
        """Return those of the `with` block that this thread is in, or none yet."""
        found: PinnedFolders | None = getattr(cls._threads, "latest", None)
        return cls() if found is None else found

    def __enter__(self) -> Self:
        self._depth += 1
        self._threads.latest = self
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._threads.latest = None
            for folder in [*self._folders.values()]:
                self.forget(folder)

    def pin(self, path: str, identity: Mapping[str, Any]) -> PinnedFolder | None:
        """Pin the folder of a record; None if its file system is gone, with all that was on it.

        Raises RefusedResourceError if it is another, or hidden; OSError.
        """
        name, _ = quarantine_names(identity)
        key = (path, name, "handle" in identity, *map(identity.get, _COMPARED))
        if (known := self._folders.get(key)) is not None:
            return known
        if len(self._folders) >= _MOST_PINNED:
            self.forget(next(iter(self._folders.values())))
        number = _openat2(_CURRENT_FOLDER, path, _FOLDER)
        try:
            if has_file_system_gone(number, identity):
                os.close(number)
                return None
            if "handle" in identity and file_handle(number) != identity["folder"]:
                raise RefusedResourceError(f"{path} is another folder than it was")
        except BaseException:
            os.close(number)
            raise
        folder = PinnedFolder(key, number, Quarantine(number, name))
        self._folders[key] = folder
        return folder

    def forget(self, folder: PinnedFolder) -> None:
        """Pin it no longer."""
        if self._folders.pop(folder.key, None) is not None:
            folder.close()


def _openat2(folder: int, path: str, how: bytes) -> int:
    """Open a path in that way. Raises RefusedResourceError if something is in it; OSError."""
    fd: int = libc().syscall(_SYS_OPENAT2, folder, os.fsencode(path), how, len(how))
    if fd >= 0:
        return fd
    error = last_error(path)
    if (problem := _PROBLEMS.get(error.errno or 0)) is None:
        raise error
    raise RefusedResourceError(problem) from error
