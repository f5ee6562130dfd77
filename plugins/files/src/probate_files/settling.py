"""All that one process owns, flushed and released together."""

from __future__ import annotations

import concurrent.futures
import time
from operator import attrgetter
from typing import TYPE_CHECKING, Final, cast

from probate_files.entry import PATIENCE
from probate_files.openfile import OpenFile
from probate_files.temporary import TemporaryFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import CleanupStats, Outcome, OwnershipTable
    from probate_files.entry import Entry

#: Seconds that the flushes of files about to be given up have, all together, to come to their turn.
_LAST_CHANCE: Final = 1.0

_is_in_memory: Final[Callable[[Entry], bool]] = attrgetter("is_in_memory")


def may_wait(table: OwnershipTable[Entry], pid: int) -> bool:
    """Whether releasing what `pid` owns may wait for a disk, or for anybody."""
    return not all(map(_is_in_memory, table.resources(pid)))


def may_wait_to_flush(table: OwnershipTable[Entry], pid: int) -> bool:
    """Whether flushing it may."""
    for entry in table.resources(pid):
        file = entry.file if isinstance(entry, TemporaryFile) else entry
        if isinstance(file, OpenFile) and file.is_written and not file.is_in_memory:
            return True
    return False


def flush(table: OwnershipTable[Entry], pid: int) -> list[concurrent.futures.Future[None]]:
    """Flush all, newest first; the futures are of files whose readers have yet to read."""
    futures = []
    for entry in reversed(table.resources(pid)):
        # What fails here fails again when it is released, and is reported then.
        try:
            flushed = entry.quiesce()
        except Exception:  # noqa: S112  as said
            continue
        if flushed is not None:
            futures.append(flushed)
    return futures


def release(table: OwnershipTable[Entry], pid: int) -> CleanupStats:
    """Flush, unlock, close and unlink all, newest first."""
    entries = table.resources(pid)
    files = [each for each in entries if isinstance(each, OpenFile) and not each.is_simple]
    if not files:
        # Whoever looks for one of them meanwhile finds none: so none that others may share.
        are_simple = set(map(type, entries)) == {OpenFile}
        close_many = _close_simple if are_simple else None
        return table.cleanup(pid, _release_at_once, release_many=close_many)
    # One wait for all, so that it does not grow with the number of readers that sleep.
    concurrent.futures.wait(flush(table, pid), PATIENCE)
    over = time.monotonic() + _LAST_CHANCE
    for file in files:
        file.await_drain(over)
    try:
        return table.cleanup(pid, _release_at_once)
    finally:
        over = time.monotonic() + PATIENCE
        for file in files:
            file.see_out(over)


def _release_at_once(entry: Entry) -> Outcome:
    return entry.release(0)


def _close_simple(entries: list[Entry]) -> None:
    """Close files that nothing is to be said of, from the end of a list; take them off it."""
    while entries and cast("OpenFile", entries[-1]).close_simply():
        entries.pop()
