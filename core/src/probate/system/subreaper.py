"""Whose orphans come to us: PR_SET_CHILD_SUBREAPER (prctl(2)).

While this process is a child subreaper, descendants whose parents have died become its
children. So they can be told from strangers, and reaped.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from typing import Final, final

from probate.system.clib import last_error, libc
from probate.system.forking import forget_in_forked_child

_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37


def is_subreaper() -> bool:
    """Whether this process is one now. Raises OSError."""
    flag = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag))
    return bool(flag.value)


def set_subreaper(flag: bool) -> None:
    """Be a child subreaper, or be none. Raises OSError where a sandbox forbids it."""
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(flag))


@final
class SubreaperUsers:
    """Has this process be a child subreaper for as long as anybody needs it to be one.

    It is one for the process, whoever in it has asked. If it was one before, it stays one.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._users: set[object] = set()
        self._was_subreaper = False
        forget_in_forked_child(self)

    def add(self, user: object) -> None:
        """Be one from now on. Raises OSError where a sandbox forbids it."""
        with self._lock:
            if not self._users:
                self._was_subreaper = is_subreaper()
                set_subreaper(True)
            self._users.add(user)

    def discard(self, user: object) -> bool:
        """Be one for the others only; whether it is none any more, as this was the last user."""
        with self._lock:
            if user not in self._users:
                return False
            self._users.discard(user)
            if self._users or self._was_subreaper:
                return False
            with contextlib.suppress(OSError):
                set_subreaper(False)
            return True

    def forget_parent(self) -> None:
        """Have no users in a forked child, which is no subreaper (prctl(2))."""
        self._lock = threading.RLock()
        self._users = set()


#: Of this process.
subreaper_users: Final = SubreaperUsers()


def _prctl(option: int, argument: object) -> None:
    if libc().prctl(option, argument, 0, 0, 0) != 0:
        raise last_error(f"prctl({option})")
