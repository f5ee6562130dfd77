"""All OS processes, and those that come while they are looked at (proc(5))."""

from __future__ import annotations

import contextlib
import os
import time
from functools import cache
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How often they are listed where some come all the time; and for how many seconds at most, where
#: too few of them could be looked at.
_LISTINGS: Final = 20
_LISTED_AT_MOST: Final = 2.0
#: Of so many that were looked at as they came, one would be of any that come as fast as they.
_SAMPLE: Final = 10
#: Where the first process may be in the directory: fs/proc/base.c, TGID_OFFSET, 258 by now.
_OFFSETS: Final = range(256, 270)


@final
class Arrivals:
    """Lists the pids of all processes, and then of those that have come, until none has.

    A process that is listed may be gone when it is looked at, and have left a child that came after
    the listing: of a program that forks and exits again and again, one listing shows only the dead.
    Whoever is alive as a listing shows nobody new was in one before, and could be looked at.
    """

    def __init__(self) -> None:
        #: Whether those who were listed last have come since the first listing.
        self.have_come = False
        self._looked_at = 0
        self._are_all = False

    @property
    def are_told(self) -> bool:
        """Whether nobody new came in the end; or so many that those who were looked at tell of all.

        Else some that are looked for may have come and gone, each unseen.
        """
        return self._are_all or self._looked_at >= _SAMPLE

    def saw(self, count: int) -> None:
        """Tell how many of those who were listed last were still there to be looked at."""
        if self.have_come:
            self._looked_at += count

    def __iter__(self) -> Iterator[list[int]]:
        known: set[int] = set()
        newest = listings = 0
        ends = time.monotonic() + _LISTED_AT_MOST
        while listings < _LISTINGS or not (self.are_told or time.monotonic() > ends):
            # Pids begin anew some day, so that nobody above the newest is not nobody at all.
            new = (newest and _pids_above(newest) - known) or _pids_above(0) - known
            if not new:
                self._are_all = True
                return
            known |= new
            newest = max(new)
            listings += 1
            # The others have rather gone.
            yield sorted(new, reverse=True)
            self.have_come = True


def _pids_above(pid: int) -> set[int]:
    """List the processes of higher pids, where that is quicker than to list all: else these.

    Thousands may have ended, and wait for an init that is slow to reap them.
    """
    with _proc() as fd:
        if pid and (offset := _offset()):
            os.lseek(fd, offset + pid + 1, os.SEEK_SET)
        return _pids_from_here(fd)


@cache
def _offset() -> int:
    """Return where in the directory pids begin, as this process's own place shows; 0 if nowhere."""
    own = os.getpid()
    with _proc() as fd:

        def has_own(place: int) -> bool:
            os.lseek(fd, place, os.SEEK_SET)
            return own in _pids_from_here(fd)

        places = (each for each in _OFFSETS if has_own(each + own) and not has_own(each + own + 1))
        return next(places, 0)


def _pids_from_here(fd: int) -> set[int]:
    return {int(name) for name in os.listdir(fd) if name.isdigit()}


@contextlib.contextmanager
def _proc() -> Iterator[int]:
    fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
