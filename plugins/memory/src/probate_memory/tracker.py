"""Taking a segment off the list of the interpreter's resource tracker."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPE: Final = "shared_memory"

#: Seconds to wait for another process that does the same, and how often to look.
_PATIENCE: Final = 0.1
_PAUSE: Final = 0.001


def forget(name: str, fd: int) -> None:
    """Have the tracker neither unlink nor mention the segment of that name, open as `fd`.

    The tracker keeps a set of names, common to all multiprocessing children, and prints a
    KeyError when told to forget a name that it does not have: a second object of the same
    segment, or another process, may have taken it off already. It is put on once more first,
    which never hurts; the lock keeps others who do the same out of the moment in between.
    """
    tracked_name = f"/{name}"
    with _alone_with(fd):
        resource_tracker.register(tracked_name, _TYPE)
        resource_tracker.unregister(tracked_name, _TYPE)


@contextlib.contextmanager
def _alone_with(fd: int) -> Iterator[None]:
    """Hold the segment's lock (flock(2)), if it can be had soon."""
    try:
        # An open of its own: locks of a duplicate, or an inherited one, are one and the same.
        lock = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        over = time.monotonic() + _PATIENCE
        while not _is_locked(lock) and time.monotonic() < over:
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(lock)


def _is_locked(fd: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
