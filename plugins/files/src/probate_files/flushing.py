"""Flushing and closing on threads that can be left behind, where a disk or a reader may hang.

A thread that is blocked in a write keeps its file's buffer locked, and whoever closes the file
waits with it. So it is left to its thread when its time is over: it stays owned, nothing that it
has is lost, and it is closed as soon as the kernel lets its thread go on.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from probate import ReleaseTimeoutError
from probate.system import CallThread
from probate_files.openfile import open_file_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import Outcome, OwnershipTable
    from probate_files.entry import Entry
    from probate_files.openfile import OpenFile

#: Seconds that a reader has to read once a termination's grace is over, and those for a disk.
READER_PATIENCE: Final = 0.1
DISK_PATIENCE: Final = 5.0

#: Seconds that there always are to see that it has just come free.
_LAST_LOOK: Final = 0.01


def in_background(call: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    """Make a call on a daemon thread of its own. Raises RuntimeError if there can be none."""
    thread = CallThread("probate-files")
    future = thread.submit(call)
    # It ends with its only call, and keeps nobody from exiting until then.
    thread.abandon()
    return future


def quiesce(table: OwnershipTable[Entry], pid: int) -> list[concurrent.futures.Future[Any]]:
    """Flush all that `pid` has opened, or start to; the futures are done when that is over."""
    futures: list[concurrent.futures.Future[Any]] = []
    on_disk: list[OpenFile] = []
    # If no more threads can be started, what is left is flushed when it is closed.
    with contextlib.suppress(RuntimeError):
        for _, entry in table.owned(pid):
            file = open_file_of(entry)
            if file is None or not file.is_written:
                continue
            if file.is_in_memory:
                file.flush()
            elif file.closing is not None:
                futures.append(file.closing)
            elif file.is_stream:
                futures.append(flush(file))
            else:
                on_disk.append(file)
        if on_disk:
            futures.append(in_background(lambda: _flush_all(on_disk)))
    return futures


def _flush_all(files: list[OpenFile]) -> None:
    for file in files:
        file.flush()


def flush(file: OpenFile) -> concurrent.futures.Future[None]:
    """Flush one file, on a thread of its own: its reader may keep it waiting, and no other."""
    if file.flushing is None or file.flushing.done():
        file.flushing = in_background(file.flush)
    return file.flushing


def release(entry: Entry) -> Outcome:
    """Give back one thing. Raises ReleaseTimeoutError if that goes on in the background."""
    file = open_file_of(entry)
    if file is None or (file.closing is None and not file.may_wait):
        return entry.release()
    closing = file.closing
    if closing is None:
        try:
            closing = file.closing = in_background(entry.release)
        except RuntimeError:
            # Unwatched is better than not at all.
            return entry.release()
    now = time.monotonic()
    over = (file.began or now) + (READER_PATIENCE if file.is_stream else DISK_PATIENCE)
    if concurrent.futures.wait([closing], max(_LAST_LOOK, over - now)).not_done:
        whose = "its reader does not read" if file.is_stream else "its disk does not answer"
        raise ReleaseTimeoutError(
            f"what is buffered for {file.path!r} is not written yet, since {whose}: that goes on "
            "in the background, and closes it"
        )
    return closing.result()


def release_by_hand(entry: Entry) -> Outcome:
    """The same for whoever closes it: a disk is waited for here, as a native close does."""
    file = open_file_of(entry)
    is_watched = file is not None and (file.is_stream or file.closing is not None)
    return release(entry) if is_watched else entry.release()
