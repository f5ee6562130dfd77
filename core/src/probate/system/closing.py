"""All descriptors let go of, in a process that was forked to live on by itself."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Standard error's number, the last that all programs have.
_LAST_STREAM: Final = 2

#: No kernel has more (fs.nr_open, proc(5)), unless it was told to.
_MOST: Final = 1 << 20


def hold_only(kept: Iterable[int]) -> None:
    """Close all descriptors but these, which are none of the standard streams: they are no file's.

    Whoever reads from a pipe waits until nobody holds its other end. Raises OSError.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(_LAST_STREAM + 1):
        os.dup2(null, fd)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    end = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    start = _LAST_STREAM + 1
    # Not by /proc/self/fd, which may be of another pid namespace.
    for fd in sorted(each for each in kept if each >= start):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, max(start, end))
