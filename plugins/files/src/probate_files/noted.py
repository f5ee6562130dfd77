"""What is noted of things with paths, and removed by that should this OS process die."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from probate.journal import Named, reclaim_path, users_of_file, users_of_folder
from probate_files.temporary import TemporaryFolder

if TYPE_CHECKING:
    from probate import Outcome, ResourceRecord
    from probate.journal import Notice
    from probate_files.entry import Entry


#: Where POSIX shared memory and semaphores are (shm_overview(7)).
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  compared


def noted(what: str, path: str, *, is_random: bool = False) -> Named[Any]:
    """Say, for the journal, how a thing at an absolute path is found."""
    return Named(f"{what} {path}", {"path": path, "is_random": is_random}, _identity)


def noted_if_named(entry: Entry) -> Named[Any] | None:
    """Say it of what was made elsewhere; None if no path goes with it."""
    if (pin := entry.pin) is None:
        return None
    what = "folder" if isinstance(entry, TemporaryFolder) else "file"
    return noted(f"temporary {what}", os.path.abspath(pin.path))  # noqa: PTH100  as in arguments


def noticed(notice: Notice) -> ResourceRecord | None:
    """Say of a FIFO, and of what is right in a folder for temporary files, what it is.

    A program may have written its result into a temporary file and handed on the name.
    """
    if notice.call == "mknod":
        return notice.record("files", f"FIFO {notice.name}")
    if notice.call == "mkdir" and notice.is_temporary:
        return notice.record("files", f"temporary folder {notice.name}", holds_data=True)
    # There it is shared memory.
    if notice.call == "open" and notice.is_temporary and notice.folder != _SHARED_MEMORY:
        return notice.record("files", f"temporary file {notice.name}", holds_data=True)
    return None


def reclaim(record: ResourceRecord, dry_run: bool) -> Outcome:
    """Remove what a dead owner has left, unless somebody uses it; a folder with all that is in it.

    Whoever waits in open(2) for the other side of a FIFO gets through, as when an owner ends.
    """
    opened: list[int] = []

    def in_use(pin: int, status: os.stat_result) -> str:
        if stat.S_ISDIR(status.st_mode):
            return users_of_folder(pin, status)
        users = users_of_file(pin, status)
        if stat.S_ISFIFO(status.st_mode) and not users and not dry_run:
            # Its mode may forbid that, and then nobody waits but root.
            with suppress(PermissionError):
                flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
                opened.append(os.open(f"/proc/self/fd/{pin}", flags))
        return users

    try:
        return reclaim_path(record, dry_run, in_use=in_use)
    finally:
        for fd in opened:
            os.close(fd)


def _identity(entry: Entry) -> dict[str, Any]:
    if entry.pin is None:
        raise OSError(errno.ESTALE, "its path was taken away as it was made")
    return entry.pin.identity()
