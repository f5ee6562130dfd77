"""The removal of a tree: of any depth, through no link, and never across a mount."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final, final

from probate.errors import RefusedResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@final
class _Level:
    """One folder on the way down: its name, what it is, and which folders are left in it."""

    __slots__ = ("folders", "is_kept", "name", "status")

    def __init__(self, name: str, status: os.stat_result, folders: list[str]) -> None:
        self.name = name
        self.status = status
        self.folders = folders
        self.is_kept = False


@final
class TreeRemoval:
    """What came of the removal of all that is in a folder.

    One descriptor is open at a time, and the way back leads through "..", which is compared with
    what it was on the way down: so a tree may be deeper than there are descriptors, frames and
    bytes in a path, and moving a part of it away meanwhile leads nobody elsewhere.
    """

    def __init__(self) -> None:
        self.errors: list[OSError] = []
        #: Paths of what is mounted in it, which was left alone.
        self.mounts: list[str] = []

    def empty(self, fd: int) -> bool:
        """Remove all that is in an open folder; False if anything is left. Closes `fd`."""
        try:
            mount = mount_of(fd)
            levels = [self._enter(fd, "")]
            while True:
                level = levels[-1]
                if level.folders:
                    name = level.folders.pop()
                    below = self._open(fd, name, mount)
                    if below is None:
                        level.is_kept = True
                        continue
                    os.close(fd)
                    fd = below
                    levels.append(self._enter(fd, name))
                elif len(levels) == 1:
                    return not level.is_kept
                else:
                    levels.pop()
                    above = os.open("..", _FOLDER, dir_fd=fd)
                    os.close(fd)
                    fd = above
                    if not os.path.samestat(os.fstat(fd), levels[-1].status):
                        raise RefusedResourceError(
                            f"folder {level.name!r} in it was moved away while it was emptied"
                        )
                    if level.is_kept or not self._remove(os.rmdir, level.name, fd):
                        levels[-1].is_kept = True
        finally:
            os.close(fd)

    def _open(self, fd: int, name: str, mount: int) -> int | None:
        """Open a folder within another; None if it is to be left alone."""
        try:
            below = os.open(name, _FOLDER, dir_fd=fd)
        except OSError as error:
            self.errors.append(error)
            return None
        if mount_of(below) == mount:
            return below
        self.mounts.append(os.readlink(f"/proc/self/fd/{below}"))
        os.close(below)
        return None

    def _enter(self, fd: int, name: str) -> _Level:
        """Remove all but the folders of an open folder."""
        level = _Level(name, os.fstat(fd), [])
        files: list[str] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                (level.folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
        for file in files:
            level.is_kept |= not self._remove(os.unlink, file, fd)
        return level

    def _remove(self, remove: Callable[..., None], name: str, fd: int) -> bool:
        try:
            with contextlib.suppress(FileNotFoundError):
                remove(name, dir_fd=fd)
        except OSError as error:
            self.errors.append(error)
            return False
        return True


def mount_of(fd: int) -> int:
    """Return the id of the mount that an open file is on: a bind mount has its own.

    As /proc/self/mountinfo has it (proc(5), /proc/pid/fdinfo); -1 if it is not told.
    """
    with open(f"/proc/self/fdinfo/{fd}") as lines:
        found = (line for line in lines if line.startswith("mnt_id:"))
        return int(next(found, "mnt_id: -1").split()[1])
