"""What a program is about to make, and what it has made: looked for where it says.

A name that was free before, and is not after a call that fails where it is taken, was made by
that call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from probate.journal.handles import birth_time, ipc_namespace, libc, queue_handle
from probate.journal.notice import Notice
from probate.journal.pinned import folder_of, name_asked_for, path_identity
from probate.run.onbehalf import is_in_our_ipc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from probate.run.notices import Attempt

#: Where POSIX shared memory and semaphores are (shm_overview(7)).
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  as above

_TEMPORARY: Final = ("/tmp", "/var/tmp", SHARED_MEMORY)  # noqa: S108  looked at, not used

_PIN: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

#: What each call makes.
_IS_MADE_BY: Final[dict[str, Callable[[int], bool]]] = {
    "open": stat.S_ISREG,
    "mkdir": stat.S_ISDIR,
    "mknod": stat.S_ISFIFO,
    "link": stat.S_ISREG,
    "bind": stat.S_ISSOCK,
}


def temporary_folders() -> frozenset[str]:
    """Return the folders for temporary files, without links."""
    wanted = (*_TEMPORARY, os.environ.get("TMPDIR", ""))
    return frozenset(os.path.realpath(each) for each in wanted if each)


def notice_of(tid: int, os_pid: int, attempt: Attempt, temporary: frozenset[str]) -> Notice | None:
    """Return the notice of what is about to be made; None if it is nothing that is given back.

    Ordinary files and folders never are, nor is what has a name that is taken already, or is made
    where it is not seen from here. Raises OSError.
    """
    uid = os.stat(f"/proc/{tid}").st_uid  # noqa: PTH116  a string, for each call
    if attempt.call == "mq_open":
        if not is_in_our_ipc(tid) or _has_queue(attempt.name):
            return None
        identity: dict[str, Any] = {"queue": attempt.name, "is_random": False, "uid": uid}
        return Notice("mq_open", os_pid, attempt.name, identity, attempt.flags)
    parent, name = os.path.split(attempt.name.rstrip("/"))
    if name in ("", ".", ".."):
        return None
    folder = folder_of(parent)
    theirs = os.stat(f"/proc/{tid}/root{parent}")  # noqa: PTH116  as above
    if (theirs.st_dev, theirs.st_ino) != (folder.device, folder.inode):
        return None
    is_temporary = folder.path in temporary
    if attempt.call in ("open", "mkdir", "link") and not is_temporary:
        return None
    if (
        attempt.call == "open"
        and not attempt.flags & os.O_EXCL
        and folder.path != os.path.realpath(SHARED_MEMORY)
    ):
        return None
    path = f"{folder.path}/{name}"
    if os.path.lexists(path):
        return None
    identity = {**name_asked_for(path), "uid": uid}
    return Notice(attempt.call, os_pid, path, identity, attempt.flags, is_temporary)


def is_there(notice: Notice) -> bool:
    """Tell whether there is anything by the name of a notice."""
    if notice.call == "mq_open":
        return _has_queue(notice.name)
    return os.path.lexists(notice.name) if notice.call in _IS_MADE_BY else True


def identity_of(notice: Notice) -> Mapping[str, Any] | None:
    """Return what tells the thing that was made from any other; None if there is none yet.

    Nothing is returned for one that was not made so: it is another user's, of another type, or
    older. Raises OSError if it cannot be looked at.
    """
    if notice.call == "mq_open":
        return _identity_of_queue(notice)
    try:
        pin = os.open(notice.name, _PIN)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        status = os.fstat(pin)
        if status.st_uid != notice.identity["uid"]:
            return {}
        if not _IS_MADE_BY[notice.call](status.st_mode):
            return {}
        if notice.call != "link":
            # What is linked is older than its name.
            born = birth_time(pin)
            if born is not None and born < notice.identity["born_since"]:
                return {}
        return path_identity(notice.name, pin)
    finally:
        os.close(pin)


def _identity_of_queue(notice: Notice) -> Mapping[str, Any] | None:
    mqd = _open_queue(notice.name)
    if mqd is None:
        return None
    if mqd < 0:
        # Its mode forbids even its user to read it.
        return {}
    try:
        if os.fstat(mqd).st_uid != notice.identity["uid"]:
            return {}
        return {"handle": queue_handle(mqd), "ipc_namespace": ipc_namespace()}
    finally:
        os.close(mqd)


def _has_queue(name: str) -> bool:
    mqd = _open_queue(name)
    if mqd is not None and mqd >= 0:
        os.close(mqd)
    return mqd is not None


def _open_queue(name: str) -> int | None:
    """Open a queue; None if there is none, -1 if it may not be opened."""
    mqd: int = libc().mq_open(os.fsencode(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if mqd < 0 and ctypes.get_errno() == errno.ENOENT:
        return None
    return mqd
