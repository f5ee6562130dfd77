"""The C library, for what Python has no functions for."""

from __future__ import annotations

import ctypes
import functools
from typing import Any


@functools.cache
def libc() -> Any:
    """Return the C library, whose calls leave errno to `ctypes.get_errno`."""
    return ctypes.CDLL(None, use_errno=True)
