"""The ownership table, as the manager uses it.

A number is all that the user has of a plain descriptor, and the kernel gives it out again. So the
table has an entry for each, found by number; an entry whose number was closed directly makes way
as soon as that turns up anew.
"""

from __future__ import annotations

import contextlib
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

from probate import OwnershipTable
from probate.system import built
from probate_files import flushing
from probate_files.descriptor import Descriptor
from probate_files.entry import Entry
from probate_files.layers import is_layer, layers_of
from probate_files.noted import noted_if_named
from probate_files.openfile import OpenFile, open_file_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ResourceId
    from probate.journal import Named
    from probate_files.locks import FileLock

#: What has a number.
Numbered = Descriptor | OpenFile

E = TypeVar("E", bound=Entry)


@final
class FileTable:
    """Who owns what, and what has which number."""

    __slots__ = ("table",)

    def __init__(self) -> None:
        self.table: OwnershipTable[Entry] = OwnershipTable(
            "files",
            flushing.release,
            identity=attrgetter("native"),
            alias=self._known_native,
            descriptors=attrgetter("descriptors"),
            repeatable=True,
        )

    def acquire(self, pid: int, make: Callable[[], E], named: Named[Any] | None = None) -> E:
        """Make a thing and have `pid` own it, or have nothing made; as the table's `acquire`."""

        def make_way(entry: E) -> E:
            for descriptor in entry.descriptors:
                owner, former = self._last_with(descriptor.number)
                if isinstance(former, Descriptor):
                    # Its number was closed directly, and has just been given out anew.
                    former.descriptor.forget()
                    self.table.disown(owner, former)
            return entry

        made: E = self.table.acquire(
            pid, partial(built, make, make_way, flushing.release), named=named
        )
        return made

    def adopt(self, pid: int, entry: Entry) -> ResourceId:
        """Have `pid` own a thing. Raises what `OwnershipTable.add` raises.

        What stands on a file that is the same process's goes with that, and under its id.
        """
        for descriptor in entry.descriptors:
            owner, other = self._last_with(descriptor.number)
            if (
                other is not None
                and owner == pid
                and other.descriptor.is_ours
                and _put_on_top(entry, other)
            ):
                self.table.check_admitted(pid)
                return self.table.find(pid, other.native)
        return self.table.add(pid, entry, named=noted_if_named(entry))

    def find(self, pid: int, native: object) -> Entry:
        """What `pid` has under this object, number or path. Raises NotOwnedError."""
        if isinstance(native, Path):
            for entry in self.table.resources(pid):
                if entry.native == native:
                    return entry
        return self.table.get(pid, self.table.find(pid, native))

    def with_number(self, number: int) -> Numbered | None:
        """What is owned here, and has this number now."""
        _, numbered = self._last_with(number)
        return numbered if numbered is not None and numbered.number == number else None

    def attach_lock(self, lock: FileLock) -> None:
        """Have the file that a lock was taken through know it, if that is owned here."""
        with contextlib.suppress(ValueError):
            file = self.with_number(lock.check())
            if file is not None:
                # Those of other owners may have ended since.
                file.locks[:] = [each for each in file.locks if self.owner_of(each) is not None]
                file.locks.append(lock)

    def owner_of(self, entry: Entry) -> int | None:
        """Who owns it, if anybody does."""
        return self.table.owner_of(entry.native)

    def _last_with(self, number: int) -> tuple[int, Numbered | None]:
        """What was last known to have this number, and its owner, if it is owned still."""
        owner, entry = self.table.with_descriptor(number) or (0, None)
        if entry is not None and not isinstance(entry, Descriptor):
            return owner, open_file_of(entry)
        return owner, entry

    def _known_native(self, native: object) -> object:
        """What the table knows a number by, or a layer of a file; all else is known by itself."""
        if isinstance(native, int):
            _, numbered = self._last_with(native)
            return native if numbered is None else numbered.native
        if is_layer(native):
            with contextlib.suppress(ValueError):
                layers = layers_of(native)
                _, numbered = (0, None) if layers is None else self._last_with(layers[-1].fileno())
                if numbered is not None and numbered.has_layer(native):
                    return numbered.native
        return native


def _put_on_top(entry: Entry, file: Numbered) -> bool:
    """Whether a thing stands on an owned file; that knows it from then on."""
    upper = entry if isinstance(entry, OpenFile) else None
    if upper is None:
        return False
    if isinstance(file, Descriptor):
        file.put_on_top(upper)
        return True
    layers = [each for each in upper.layers if not file.has_layer(each)]
    if not layers or len(layers) == len(upper.layers):
        return False
    file.put_on_top(layers)
    return True
