"""All OS processes, and those that come while they are looked at (proc(5))."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How often they are listed at most.
_LISTINGS: Final = 20


@final
class Arrivals:
    """Lists the pids of all processes, and then of those that have come, until none has.

    A process that is listed may be gone when it is looked at, and have left a child that came after
    the listing: of a program that forks and exits again and again, one listing shows only the dead.
    Whoever is alive as a listing shows nobody new was in one before, and could be looked at.
    """

    def __init__(self) -> None:
        #: Whether the last listing showed nobody new; once all have been iterated over.
        self.are_all = False

    def __iter__(self) -> Iterator[list[int]]:
        known: set[int] = set()
        for _ in range(_LISTINGS):
            listed = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208  names are what is needed
            if not (new := listed - known):
                self.are_all = True
                return
            known |= new
            yield sorted(new)
