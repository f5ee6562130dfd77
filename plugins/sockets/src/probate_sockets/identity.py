"""Which socket a number refers to: one that was closed elsewhere is soon another's (open(2))."""

from __future__ import annotations

import os
from typing import Final

#: Inode and device, which a socket keeps for as long as anybody has it open.
Identity = tuple[int, int]

#: What no number refers to.
NOTHING: Final[Identity] = (-1, -1)


def identify(number: int) -> Identity:
    """Tell what a number refers to now; NOTHING if it is not open."""
    try:
        return os.fstat(number)[1:3]
    except OSError:
        return NOTHING
