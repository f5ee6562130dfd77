"""Removing what a dead owner has left by name, and nothing else: for `reclaim` of any kind.

A name may be anybody's by then. So the folder is opened without following links (openat2(2)) and
compared, the thing is pinned below it and compared by its file handle, and who still uses it is
looked for. Then it is removed in a quarantine, since another could take the name still. What is in
a folder is removed before that, below the pinned folder itself.
"""

from __future__ import annotations

import os
import stat
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate.errors import BusyResourceError, RefusedResourceError
from probate.journal.handles import birth_time, file_handle, seconds_since_boot
from probate.journal.mounts import file_system_of, has_file_system_gone
from probate.journal.notice import FOLDERS
from probate.journal.pinnedfolders import PinnedFolders, quarantine_names
from probate.outcome import Outcome
from probate.system.making import using
from probate.system.tree import TreeRemoval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from probate.journal.pinnedfolders import PinnedFolder
    from probate.models import ResourceRecord

_PATH_ONLY: Final = os.O_PATH | os.O_CLOEXEC

#: CLOCK_REALTIME_COARSE, by which the kernel stamps files: it is some milliseconds behind.
_FILE_CLOCK: Final = 5

#: How many folders of others are named.
_FEW: Final = 3

#: Nanoseconds after it was noted that something is made, at most, on however busy a machine.
_MAKING: Final = 2_000_000_000

#: A clock that moved by more seconds against the time since boot was set.
_CLOCK_JUMP: Final = 1.0


def path_identity(path: str, fd: int | None = None) -> dict[str, Any]:
    """Return what tells the thing at an absolute path from any other, also when its maker is dead.

    `fd` refers to it, if it is open; else it is pinned at its path, without following a link.
    Raises OSError.
    """
    if fd is None:
        pin = partial(os.open, path, _PATH_ONLY | os.O_NOFOLLOW)
        return using(pin, partial(path_identity, path))
    return known_identity(path, file_handle(fd), os.fstat(fd).st_uid)


def known_identity(path: str, handle: str | None, uid: int) -> dict[str, Any]:
    """As `path_identity`, of a thing whose handle and owner are known already."""
    parent, _, name = path.rpartition("/")
    folder = folder_of(parent or "/")
    return {
        "path": f"{folder.path}/{name}",
        "folder": folder.handle,
        **folder.file_system,
        "handle": handle,
        "uid": uid,
    }


def name_asked_for(path: str) -> dict[str, Any]:
    """Return what to note of a path before something is made there that must not be there yet.

    For a name that others could choose as well, and a system call that fails if it is taken. Should
    the owner die before it can note what it has made, a thing at the path is its own only if it
    is not older than this.
    """
    now = time.clock_gettime_ns(_FILE_CLOCK)
    return {"path": path, "born_since": now, "clock": time.time() - seconds_since_boot()}


@final
class Folder(NamedTuple):
    """What is known of a folder, while it is the same."""

    device: int
    inode: int
    #: Without links.
    path: str
    handle: str | None
    #: As `file_system_of` has it.
    file_system: Mapping[str, Any]


#: By the paths that they were asked for by. There are few that things are made in.
_folders: Final[dict[str, Folder]] = {}
_MOST_FOLDERS: Final = 256


def folder_of(path: str) -> Folder:
    """Return what is known of the folder that is at a path now. Raises OSError."""
    status = os.stat(path)  # noqa: PTH116  it is a string
    known = _folders.get(path)
    if known is None or (known.device, known.inode) != (status.st_dev, status.st_ino):
        if len(_folders) > _MOST_FOLDERS:
            _folders.clear()
        pin = partial(os.open, path, _PATH_ONLY | os.O_DIRECTORY)
        known = _folders[path] = using(pin, partial(_folder_at, status))
    return known


def _folder_at(status: os.stat_result, pin: int) -> Folder:
    real = os.readlink(f"/proc/self/fd/{pin}").rstrip("/")
    return Folder(status.st_dev, status.st_ino, real, file_handle(pin), file_system_of(pin))


def reclaim_path(
    record: ResourceRecord,
    dry_run: bool,
    *,
    in_use: Callable[[int, os.stat_result], str] | None = None,
) -> Outcome:
    """Remove the thing that a record made by `path_identity` tells of: a file, or a folder tree.

    `in_use` is called with a descriptor that pins it, and its status, and says who still uses it,
    or nothing. Returns ALREADY_GONE if it is gone, or another is at its path. Raises
    RefusedResourceError, with the reason, for what is not to be removed; OSError.
    """
    identity = record.identity
    above, _, name = identity["path"].rpartition("/")
    parent = above or "/"
    with PinnedFolders.of_this_thread() as folders:
        try:
            folder = folders.pin(parent, identity)
            if folder is None:
                return Outcome.ALREADY_GONE
        except (FileNotFoundError, NotADirectoryError):
            _check_above(parent, identity)
            return Outcome.ALREADY_GONE
        try:
            return _reclaim(folder, name, identity, in_use, dry_run=dry_run)
        except BusyResourceError:
            # Its quarantine may be gone.
            folders.forget(folder)
            raise


def _reclaim(
    folder: PinnedFolder,
    name: str,
    identity: Mapping[str, Any],
    in_use: Callable[[int, os.stat_result], str] | None,
    *,
    dry_run: bool,
) -> Outcome:
    # What has a handle is told from any other that has its name by now. So it is there or, if one
    # was killed who removed it, in quarantine; else it is looked for in there first.
    has_handle = identity.get("handle") is not None
    if not has_handle and _recover(folder, name, identity, dry_run=dry_run):
        return Outcome.RELEASED
    try:
        outcome = _reclaim_there(folder, name, identity, in_use, dry_run=dry_run)
    except (OSError, RefusedResourceError):
        if has_handle and _recover(folder, name, identity, dry_run=dry_run):
            return Outcome.RELEASED
        raise
    is_gone = has_handle and outcome is Outcome.ALREADY_GONE
    if is_gone and _recover(folder, name, identity, dry_run=dry_run):
        return Outcome.RELEASED
    return outcome


def _recover(
    folder: PinnedFolder, name: str, identity: Mapping[str, Any], *, dry_run: bool
) -> bool:
    """Remove what somebody had moved into quarantine who was killed then; tell whether it was."""
    _, to = quarantine_names(identity)
    is_the_one = partial(_is_surely_the_one, identity)
    return folder.quarantine.recover(name, is_the_one, dry_run=dry_run, to=to)


def _reclaim_there(
    folder: PinnedFolder,
    name: str,
    identity: Mapping[str, Any],
    in_use: Callable[[int, os.stat_result], str] | None,
    *,
    dry_run: bool,
) -> Outcome:
    """Remove what has that name in the folder, if it is the one."""
    try:
        pin = folder.pin(name)
    except FileNotFoundError:
        return Outcome.ALREADY_GONE
    try:
        status = os.fstat(pin)
        if not _is_the_one(pin, status, identity):
            return Outcome.ALREADY_GONE
        if in_use is not None and (users := in_use(pin, status)):
            raise RefusedResourceError(users)
        is_folder = stat.S_ISDIR(status.st_mode)
        if is_folder:
            _check_within(pin, identity)
        if dry_run:
            return Outcome.RELEASED
        if is_folder:
            _empty(pin)
        handle = identity.get("handle") or file_handle(pin)
        _, to = quarantine_names(identity)
        return folder.quarantine.remove(name, pin, handle, is_folder=is_folder, to=to)
    finally:
        os.close(pin)


def _check_above(parent: str, identity: Mapping[str, Any]) -> None:
    """Raise RefusedResourceError if what there is of a path is on another file system."""
    # Nothing is above what is no absolute path.
    while parent and not os.path.isdir(parent):  # noqa: PTH112  a string
        parent = os.path.dirname(parent)  # noqa: PTH120  as above
    fd = os.open(parent or "/", _PATH_ONLY)
    try:
        has_file_system_gone(fd, identity)
    finally:
        os.close(fd)


def _is_surely_the_one(identity: Mapping[str, Any], pin: int) -> bool:
    try:
        return _is_the_one(pin, os.fstat(pin), identity)
    except RefusedResourceError:
        return False


def _is_the_one(pin: int, status: os.stat_result, identity: Mapping[str, Any]) -> bool:
    """Compare what is pinned with a record. Raises RefusedResourceError where nobody can know."""
    if status.st_uid != identity["uid"]:
        raise RefusedResourceError(f"it belongs to user {status.st_uid}")
    if "handle" not in identity:
        # The owner died between the intent and its confirmation.
        if not identity.get("is_random"):
            _check_age(pin, identity)
        return True
    if identity["handle"] is None:
        # There is no more to tell it by than before it was confirmed.
        if not identity.get("is_random"):
            raise RefusedResourceError("its file system gives no handles to tell it by")
        return True
    return bool(file_handle(pin) == identity["handle"])


def is_successor(born: int, identity: Mapping[str, Any]) -> bool:
    """Tell whether a thing was made too late to be that which `name_asked_for` was noted for.

    Whoever has died may have been started again, and have made it anew.
    """
    return bool(born > identity["born_since"] + _MAKING)


def _check_age(pin: int, identity: Mapping[str, Any]) -> None:
    """Raise RefusedResourceError unless a thing was made after its owner was about to make it."""
    died = "its owner died as it made it, and"
    if "born_since" not in identity:
        raise RefusedResourceError(f"{died} the name was not its own")
    if abs(time.time() - seconds_since_boot() - identity["clock"]) > _CLOCK_JUMP:
        raise RefusedResourceError(f"{died} the clock was set since, so that no age can be told")
    born = birth_time(pin)
    if born is None or born < identity["born_since"]:
        raise RefusedResourceError(f"{died} what is there may be older")
    if is_successor(born, identity):
        raise RefusedResourceError(f"{died} what is there is a later one")


def _check_within(pin: int, identity: Mapping[str, Any]) -> None:
    """Raise RefusedResourceError if a folder has folders in it that its owner was not seen to make.

    They may be others': some make a folder that all share, if it is not there yet.
    """
    if FOLDERS not in identity:
        return
    with os.scandir(f"/proc/self/fd/{pin}") as entries:
        found = {each.name for each in entries if each.is_dir(follow_symlinks=False)}
    # Things in it may have just been removed, in that of this host.
    quarantine, _ = quarantine_names(identity)
    if others := sorted(found - {*identity[FOLDERS], quarantine}):
        names = ", ".join(others[:_FEW])
        raise RefusedResourceError(f"its owner was not seen to make folders in it: {names}")


def _empty(pin: int) -> None:
    """Remove all that is in a pinned folder. Raises OSError, RefusedResourceError for a mount."""
    removal = TreeRemoval()
    removal.empty(os.open(f"/proc/self/fd/{pin}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    if removal.mounts:
        raise RefusedResourceError(f"something is mounted in it: unmount {removal.mounts[0]}")
    if removal.errors:
        raise removal.errors[0]
