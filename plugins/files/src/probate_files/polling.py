"""Numbers that an event loop or a selector polls: it lets go of them before they are closed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from probate.system import let_all_go
from probate_files import flushing
from probate_files.descriptor import Descriptor
from probate_files.openfile import open_file_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probate import Outcome
    from probate.system import LetGo
    from probate_files.entry import Entry


def have_let_go(entries: Iterable[Entry]) -> dict[Entry, LetGo]:
    """Have those who poll any of these let go of it; tell what came of it, of those polled."""
    numbers: dict[int, Entry] = {}
    for entry in entries:
        numbered = entry if isinstance(entry, Descriptor) else open_file_of(entry)
        if numbered is not None and (number := numbered.number) is not None:
            numbers[number] = entry
    return {numbers[number]: found for number, found in let_all_go(numbers).items()}


def release(polled_ones: dict[Entry, LetGo], entry: Entry) -> Outcome:
    """Give back a thing as `flushing.release`, if it is polled by nobody any more.

    Raises as `LetGo.then`.
    """
    found = polled_ones.get(entry)
    return (
        flushing.release(entry) if found is None else found.then(partial(flushing.release, entry))
    )
