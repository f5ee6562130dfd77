"""Whose orphans come to us: PR_SET_CHILD_SUBREAPER (prctl(2)).

While this process is a child subreaper, descendants whose parents have died become its
children. So they can be told from strangers, and reaped.
"""

from __future__ import annotations

import ctypes
from typing import Final

from probate.system.clib import last_error, libc

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


def _prctl(option: int, argument: object) -> None:
    if libc().prctl(option, argument, 0, 0, 0) != 0:
        raise last_error(f"prctl({option})")
