"""What a program is about to make, and whether that is anything to be given back."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Final

from probate.journal.made import has_queue
from probate.journal.notice import FOLDERS, Notice
from probate.journal.pinned import folder_of, name_asked_for
from probate.run.onbehalf import is_in_our_ipc

if TYPE_CHECKING:
    from probate.run.notices import Attempt

#: Where POSIX shared memory and semaphores are (shm_overview(7)).
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  as above

_TEMPORARY: Final = ("/tmp", "/var/tmp", SHARED_MEMORY)  # noqa: S108  looked at, not used


#: Calls by which something is given back only if it is made in such a folder.
_IN_TEMPORARY: Final = ("open", "mkdir", "link")


@functools.cache
def _shared_memory() -> str:
    """Return the folder of shared memory, without links: each call that is noticed may ask."""
    return os.path.realpath(SHARED_MEMORY)


def temporary_folders() -> frozenset[str]:
    """Return the folders for temporary files, without links."""
    wanted = (*_TEMPORARY, os.environ.get("TMPDIR", ""))
    return frozenset(os.path.realpath(each) for each in wanted if each)


def notice_of(tid: int, os_pid: int, attempt: Attempt, temporary: frozenset[str]) -> Notice | None:
    """Return the notice of what is about to be made; None if it is nothing that is given back.

    Ordinary files and folders never are, nor is what has a name that is taken already, or is made
    where it is not seen from here. Folders right in what may be a temporary folder are told of all
    the same: what else is in that is others'. Raises OSError.
    """
    if attempt.call == "mq_open":
        if not is_in_our_ipc(tid) or has_queue(attempt.name):
            return None
        identity: dict[str, Any] = {"queue": attempt.name, "is_random": False, "uid": _uid_of(tid)}
        return Notice("mq_open", os_pid, attempt.name, identity, attempt.flags)
    parent, _, name = attempt.name.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        return None
    folder = folder_of(parent or "/")
    is_temporary = folder.path in temporary
    if attempt.call in _IN_TEMPORARY and not is_temporary:
        is_within = attempt.call == "mkdir" and os.path.dirname(folder.path) in temporary  # noqa: PTH120
        if not is_within:
            return None
    if attempt.call == "open" and not attempt.flags & os.O_EXCL and folder.path != _shared_memory():
        return None
    theirs = os.stat(f"/proc/{tid}/root{parent}")  # noqa: PTH116  a string, for each call
    if theirs.st_ino != folder.inode or theirs.st_dev != folder.device:
        return None
    path = f"{folder.path}/{name}"
    # What cannot be looked at is taken for free, as by `os.path.lexists`, which takes longer.
    if os.access(path, os.F_OK, follow_symlinks=False):
        return None
    identity = name_asked_for(path)
    identity["uid"] = _uid_of(tid)
    if attempt.call == "mkdir" and is_temporary:
        # Of those within, which are its own.
        identity[FOLDERS] = []
    return Notice(attempt.call, os_pid, path, identity, attempt.flags, is_temporary)


def _uid_of(tid: int) -> int:
    return os.stat(f"/proc/{tid}").st_uid  # noqa: PTH116  as above
