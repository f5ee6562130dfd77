"""All OS processes, and those that come while they are looked at (proc(5))."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How often they are listed at most.
_LISTINGS: Final = 20
#: Of so many that were looked at as they came, one would be of any that come as fast as they.
_SAMPLE: Final = 10


@final
class Arrivals:
    """Lists the pids of all processes, and then of those that have come, until none has.

    A process that is listed may be gone when it is looked at, and have left a child that came after
    the listing: of a program that forks and exits again and again, one listing shows only the dead.
    Whoever is alive as a listing shows nobody new was in one before, and could be looked at.
    """

    def __init__(self) -> None:
        #: How many of those that have come were still there to be looked at; for the caller to say.
        self.looked_at = 0
        self._are_all = False

    @property
    def are_told(self) -> bool:
        """Whether nobody new came in the end; or so many that those who were looked at tell of all.

        Else some that are looked for may have come and gone, each unseen.
        """
        return self._are_all or self.looked_at >= _SAMPLE

    def __iter__(self) -> Iterator[list[int]]:
        known: set[int] = set()
        for _ in range(_LISTINGS):
            listed = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208  names are what is needed
            if not (new := listed - known):
                self._are_all = True
                return
            known |= new
            yield sorted(new)
