"""The C library, for what Python has no functions for."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any


@functools.cache
def libc() -> Any:
    """Return the C library, whose calls leave errno to `ctypes.get_errno`."""
    return ctypes.CDLL(None, use_errno=True)


def last_error(what: str | None = None) -> OSError:
    """Return the error of this thread's last call of `libc`, which has failed, and of what."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
