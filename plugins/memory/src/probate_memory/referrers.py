"""Whether anything else refers to an object that a close would pull from under it.

`np.ndarray(buffer=shm.buf)`, as in Python's own documentation of shared memory, gives the buffer
back at once and refers to the `mmap.mmap` below instead. Closing that map succeeds, and the next
look at the array is a SIGSEGV. The one trace of such an array is its reference to the map.
"""

from __future__ import annotations

import mmap
import sys
from typing import Final, final

from probate import BusyResourceError
from probate.system import heap


@final
class _Holder:
    __slots__ = ("map",)

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, 1)


def _references(holder: object, name: str) -> int:
    return sys.getrefcount(getattr(holder, name))


def _count_alone() -> int:
    holder = _Holder()
    count = _references(holder, "map")
    # No `with`, which would count as a reference, too.
    holder.map.close()
    return count


#: Measured, since interpreters differ in how many references a call holds itself.
_ALONE: Final = _count_alone()


def has_other_referrers(holder: object, name: str) -> bool:
    """Whether anything but `holder` refers to the object that is its attribute `name`.

    A memoryview of a map counts as well, so release the known ones first.
    """
    with heap.unobserved():
        return _references(holder, name) > _ALONE


def still_in_use() -> BusyResourceError:
    """What to raise then."""
    return BusyResourceError(
        "still in use: release the memoryviews of it, and drop the arrays and other objects that "
        "lie on it"
    )
