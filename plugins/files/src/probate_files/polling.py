"""Numbers that an event loop or a selector polls: it lets go of them before they are closed."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from probate import BusyResourceError, Outcome, ReleaseError
from probate.system import let_go, polled
from probate_files import flushing
from probate_files.descriptor import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probate.system import LetGo
    from probate_files.entry import Entry

#: What epoll_ctl(2) takes none of.
_NEVER_POLLED: Final = {stat.S_IFREG, stat.S_IFDIR}


def have_let_go(entries: Iterable[Entry]) -> dict[Entry, LetGo]:
    """Have those who poll any of these let go of it; tell what came of it, of those polled."""
    numbers: dict[int, Entry] = {}
    for entry in entries:
        numbered = entry if isinstance(entry, Descriptor) else entry.open_file
        if numbered is not None and numbered.identity.file_type not in _NEVER_POLLED:
            number = numbered.number
            if number is not None:
                numbers[number] = entry
    found = polled(numbers) if numbers else {}
    return {numbers[number]: let_go(number) for number in found}


def release(polled_ones: dict[Entry, LetGo], entry: Entry) -> Outcome:
    """Give back a thing as `flushing.release`, if it is polled by nobody any more.

    Raises BusyResourceError if it is, ReleaseError for what a transport had yet to write.
    """
    found = polled_ones.get(entry)
    if found is None:
        return flushing.release(entry)
    if found.by:
        raise BusyResourceError(found.by)
    # A transport may have closed it as well.
    flushing.release(entry)
    if found.lost:
        raise ReleaseError(f"closed, and {found.lost} bytes that were not written yet are lost")
    return Outcome.RELEASED
