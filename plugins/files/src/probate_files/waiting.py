"""Waiting for a lock, without being out of reach meanwhile.

A thread that waits in flock(2) or F_OFD_SETLKW is woken by nothing but a signal, and neither call
takes a timeout or gives a descriptor to poll. So it is asked for again and again, ever less
often: its owner's termination, a closed file and the timeout are then noticed too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from probate import AlreadyOwnedError

if TYPE_CHECKING:
    import threading

    from probate_files.locks import FileLock
    from probate_files.table import FileTable

#: Seconds between the first two attempts, and the most between any two.
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05


def wait_for(
    lock: FileLock, pid: int, files: FileTable, taking: threading.Lock, timeout: float | None
) -> FileLock:
    """Take `lock` for `pid`; `timeout` in seconds, None for no end. See `FileManager.lock`."""
    over = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        # One at a time: the kernel grants a description what it has already, to whomever it is.
        with taking, lock.pinned() as fd:
            if lock.is_taken_on(fd):
                raise _taken(lock, files)
            if lock.try_to_take(fd):
                try:
                    lock.check()
                except ValueError:
                    # Closed in between, while a duplicate may keep the lock.
                    lock.give_up(fd)
                    raise
                return lock
        left = _LONGEST_PAUSE if over is None else over - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"held by somebody else, after {timeout} seconds: {lock!r}")
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)
        files.table.check_admitted(pid)


def _taken(lock: FileLock, files: FileTable) -> AlreadyOwnedError:
    file = files.with_number(lock.check())
    owners = (files.owner_of(each) for each in ([] if file is None else file.locks))
    owner = next((each for each in owners if each is not None), None)
    what = f"a lock of this open file description, which duplicates share ({lock!r})"
    return AlreadyOwnedError(files.table.kind, what, owner)
