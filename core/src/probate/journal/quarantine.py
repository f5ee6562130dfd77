"""Quarantine: where a thing is moved, out of everybody's reach, to be removed or put back.

Between a comparison and an unlink(2) another could take the name. So the thing is moved into a
folder beside it that nobody else can enter, compared there, and put back if it is not the one.
One serves for all things of a host in a folder. Who does that may be killed: then the next one
finds it again by its name, and what is in it by the number of its row, which only those know who
have the rows.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from probate.errors import BusyResourceError, RefusedResourceError
from probate.journal.handles import file_handle
from probate.outcome import Outcome
from probate.system.clib import libc

if TYPE_CHECKING:
    from collections.abc import Callable

#: include/uapi/linux/fs.h.
_RENAME_NOREPLACE: Final = 1

_PATH_ONLY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: There is no room for a folder, though there may be for another name.
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EMLINK}

#: What a file system says that knows no rename which replaces nothing (renameat2(2)).
_NO_FLAGS: Final = {errno.EINVAL, errno.ENOSYS}


@functools.lru_cache(maxsize=16)
def quarantine_name(host: str) -> str:
    """Return what a host's quarantines are called, which nobody can guess who has no row of it."""
    # Imported here: it takes as long as half of a kind.
    from hashlib import sha256

    return f".probate-{sha256(host.encode()).hexdigest()[:16]}"


@final
class Quarantine:
    """The quarantine of the things in a pinned folder, beside them: made with the first of them.

    Each thing has a name of its own in it, by which it is found again. Without a `name` it has one
    that nobody knows. Close it in the end.
    """

    def __init__(self, folder: int, name: str | None = None) -> None:
        self._folder = folder
        self._name = name or f".probate-{os.urandom(8).hex()}"
        self._inside: int | None = None
        #: What others have left in it who were killed; None before somebody has looked.
        self._left: set[str] | None = None if name else set()

    def remove(
        self, name: str, pin: int, handle: str | None, *, is_folder: bool, to: str | None = None
    ) -> Outcome:
        """Remove a name of the folder if it still is what `pin` refers to; put back what is not.

        `handle` is that of `pin`, and `to` the thing's name in here. A folder is empty. Returns
        ALREADY_GONE if it is another's by now. Raises OSError, BusyResourceError,
        RefusedResourceError.
        """
        to = to or name
        inside = self._inside
        if inside is None:
            try:
                os.mkdir(self._name, 0o700, dir_fd=self._folder)
            except OSError as error:
                if error.errno in _NO_ROOM and not is_folder:
                    # Under a name that nobody knows it is out of the way of all who mean no harm;
                    # and who may do harm here could have removed what is brought there.
                    alone = self._name_alone(to)
                    return self._remove(name, pin, handle, self._folder, alone, is_folder=False)
                if not isinstance(error, FileExistsError):
                    raise
            inside = self._open()
        return self._remove(name, pin, handle, inside, to, is_folder=is_folder)

    def recover(
        self, name: str, is_the_one: Callable[[int], bool], *, dry_run: bool, to: str | None = None
    ) -> bool:
        """Remove what was moved by one who was killed before he could; tell whether that was so.

        `is_the_one` is asked of it, with a descriptor that pins it. Another's is put back, unless
        it is a dry run. Raises OSError, RefusedResourceError.
        """
        if to is None:
            return False
        if self._left is None:
            self._left = self._names_left()
        if to in self._left and self._inside is not None:
            return self._recover(name, is_the_one, self._inside, to, dry_run=dry_run)
        alone = self._name_alone(to)
        if not os.access(alone, os.F_OK, dir_fd=self._folder, follow_symlinks=False):
            return False
        return self._recover(name, is_the_one, self._folder, alone, dry_run=dry_run)

    def close(self) -> None:
        """Let go of it, and remove it if nothing is left in it."""
        if self._inside is not None:
            os.close(self._inside)
            self._inside = None
            with suppress(OSError):
                os.rmdir(self._name, dir_fd=self._folder)

    def _name_alone(self, to: str) -> str:
        """Return the name, in the folder, of a thing for which there is no room in here."""
        return f"{self._name}-{to}"

    def _names_left(self) -> set[str]:
        try:
            inside = self._open() if self._inside is None else self._inside
            return set(os.listdir(inside))  # noqa: PTH208  by its descriptor
        except FileNotFoundError:
            return set()

    def _recover(
        self, name: str, is_the_one: Callable[[int], bool], inside: int, to: str, *, dry_run: bool
    ) -> bool:
        try:
            pin = os.open(to, _PATH_ONLY, dir_fd=inside)
        except FileNotFoundError:
            return False
        try:
            is_ours = is_the_one(pin)
            if not dry_run:
                if is_ours:
                    _unlink(inside, to, is_folder=stat.S_ISDIR(os.fstat(pin).st_mode))
                else:
                    self._put_back(inside, to, name)
            return is_ours
        finally:
            os.close(pin)

    def _open(self) -> int:
        """Open it, if it is ours alone. Raises RefusedResourceError; OSError."""
        in_the_way = f"{self._path(self._name)} is in the way, and not ours"
        try:
            inside = os.open(self._name, _FOLDER, dir_fd=self._folder)
        except NotADirectoryError as error:
            raise RefusedResourceError(in_the_way) from error
        try:
            status = os.fstat(inside)
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise RefusedResourceError(in_the_way)
        except BaseException:
            os.close(inside)
            raise
        self._inside = inside
        return inside

    def _remove(
        self, name: str, pin: int, handle: str | None, inside: int, to: str, *, is_folder: bool
    ) -> Outcome:
        try:
            if not _has_moved(self._folder, name, inside, to):
                # There is nothing in there that it could replace.
                os.rename(name, to, src_dir_fd=self._folder, dst_dir_fd=inside)
        except FileNotFoundError:
            if not os.fstat(inside).st_nlink:
                raise BusyResourceError("others remove what is made beside it") from None
            return Outcome.ALREADY_GONE
        is_gone = False
        try:
            if not _is_same(inside, to, pin, handle):
                return Outcome.ALREADY_GONE
            _unlink(inside, to, is_folder=is_folder)
            is_gone = True
            return Outcome.RELEASED
        finally:
            if not is_gone:
                self._put_back(inside, to, name)

    def _put_back(self, inside: int, name: str, to: str) -> None:
        try:
            if not _has_moved(inside, name, self._folder, to):
                # A second name replaces nothing either; of folders, the kernel makes none.
                os.link(name, to, src_dir_fd=inside, dst_dir_fd=self._folder, follow_symlinks=False)
                os.unlink(name, dir_fd=inside)
        except FileExistsError as error:
            kept = self._path(name if inside == self._folder else f"{self._name}/{name}")
            raise OSError(
                error.errno, f"a newer one has its name, and what was there before is now {kept}"
            ) from error

    def _path(self, name: str) -> str:
        return f"{os.readlink(f'/proc/self/fd/{self._folder}')}/{name}"


def _is_same(folder: int, name: str, pin: int, handle: str | None) -> bool:
    """Tell whether a name in a folder is what `pin` refers to, which has that handle, if any."""
    if handle is not None:
        return file_handle(name, folder=folder) == handle
    # The pin keeps its number from any other.
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return os.path.samestat(found, os.fstat(pin))


def _unlink(folder: int, name: str, *, is_folder: bool) -> None:
    (os.rmdir if is_folder else os.unlink)(name, dir_fd=folder)


def _has_moved(source: int, name: str, target: int, to: str) -> bool:
    """Move a name to where there must be none; False if the file system cannot promise that.

    Raises OSError, FileExistsError included.
    """
    old, new = os.fsencode(name), os.fsencode(to)
    if libc().renameat2(source, old, target, new, _RENAME_NOREPLACE) == 0:
        return True
    if (number := ctypes.get_errno()) in _NO_FLAGS:
        return False
    raise OSError(number, os.strerror(number), name)
