"""What was about to be made, and what is there now: for notices of programs that are supervised.

A name that was free before, and is not after a call that fails where it is taken, was made by
that call. So it is looked for where the notice says.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from probate.journal.handles import birth_time, ipc_namespace, queue_handle
from probate.journal.pinned import is_successor, path_identity
from probate.journal.sysv import sysv_status
from probate.system.clib import libc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from probate.journal.notice import Notice

_PIN: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

#: What each call makes.
_IS_MADE_BY: Final[dict[str, Callable[[int], bool]]] = {
    "open": stat.S_ISREG,
    "mkdir": stat.S_ISDIR,
    "mknod": stat.S_ISFIFO,
    "link": stat.S_ISREG,
    "bind": stat.S_ISSOCK,
}


def seen_again(notice: Notice) -> Notice | None:
    """Look for what a notice says was about to be made, by a program that is dead by now.

    Return the notice with what it was made to be; None if nothing was made. Raises OSError if it
    cannot be looked at.
    """
    if notice.state == "confirmed" or notice.call not in (*_IS_MADE_BY, "mq_open"):
        return notice
    found = identity_of(notice)
    if not found:
        return None
    return notice._replace(identity={**notice.identity, **found}, state="confirmed")


def is_there(notice: Notice) -> bool:
    """Tell whether there is anything by the name of a notice."""
    if notice.call == "mq_open":
        return has_queue(notice.name)
    if notice.call in _IS_MADE_BY:
        return os.path.lexists(notice.name)
    return sysv_status(notice.identity["which"], notice.identity["id"]) is not None


def has_surely_gone(notice: Notice) -> bool:
    """Tell whether nothing is by the name of a notice; not if that is not certain, nor of queues.

    It takes less than `identity_of`.
    """
    if notice.call not in _IS_MADE_BY:
        return False
    try:
        os.lstat(notice.name)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def identity_of(notice: Notice) -> Mapping[str, Any] | None:
    """Return what tells the thing that was made from any other; None if there is none yet.

    Nothing is returned for one that was not made so: it is another user's, of another type, older,
    or a later one. Raises OSError if it cannot be looked at.
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
            since = notice.identity["born_since"]
            if born is not None and (born < since or is_successor(born, notice.identity)):
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


def has_queue(name: str) -> bool:
    """Tell whether there is a POSIX queue of that name, with its slash."""
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
