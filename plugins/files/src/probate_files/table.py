"""The ownership table, and which entry has which descriptor number.

A number is all that the user has of a plain descriptor, and the kernel gives it out again. So the
table has an entry for each, and knows them by number; an entry whose number was closed directly
makes way as soon as that turns up anew.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, final

from probate import AlreadyOwnedError, OwnershipTable
from probate.system import forget_in_forked_child
from probate_files import flushing
from probate_files.descriptor import Descriptor
from probate_files.entry import Entry
from probate_files.openfile import OpenFile, is_layer, layers_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ResourceId
    from probate_files.locks import FileLock

#: What has a number.
Numbered = Descriptor | OpenFile

E = TypeVar("E", bound=Entry)

#: Somebody to ask the table for, when the question is who owns a thing.
_NOBODY: Final = -1


@final
class FileTable:
    """Who owns what; and what was last known to have a number, which says nothing of owners."""

    __slots__ = ("__weakref__", "_adopting", "_numbers", "table")

    def __init__(self) -> None:
        self.table: OwnershipTable[Entry] = OwnershipTable(
            "files",
            flushing.release,
            identity=attrgetter("native"),
            alias=self._known_native,
        )
        #: Without callbacks, which each end would pay for: no more than there are numbers.
        self._numbers: dict[int, weakref.ref[Numbered]] = {}
        #: Held from the look at who owns a number until it is owned.
        self._adopting = threading.Lock()
        forget_in_forked_child(self)

    def forget_parent(self) -> None:
        """Know no numbers, in a forked child."""
        self._numbers = {}
        self._adopting = threading.Lock()

    def acquire(self, pid: int, make: Callable[[], E]) -> E:
        """Make a thing and have `pid` own it, or have nothing made; as the table's `acquire`."""

        def make_noted() -> E:
            entry = make()
            self._note(entry)
            return entry

        return self.table.acquire(pid, make_noted)

    def adopt(self, pid: int, entry: Entry) -> ResourceId:
        """Have `pid` own a thing. Raises what `OwnershipTable.add` raises.

        AlreadyOwnedError also for another object with the same descriptor; what stands on a file
        that is the same process's goes with that, and under its id.
        """
        numbered = _numbered(entry)
        with self._adopting:
            number = None if numbered is None else numbered.number
            other = None if number is None else self.with_number(number)
            owner = None if other is None else self.owner_of(other)
            if other is not None and owner == pid and _put_on_top(entry, other):
                self.table.check_admitted(pid)
                return self.table.find(pid, other.native)
            if owner is not None:
                raise AlreadyOwnedError(self.table.kind, self.table.describe(entry), owner)
            resource_id = self.table.add(pid, entry)
            self._note(entry)
        return resource_id

    def find(self, pid: int, native: object) -> Entry:
        """What `pid` has under this object, number or path. Raises NotOwnedError."""
        if isinstance(native, Path):
            for entry in self.table.resources(pid):
                if entry.native == native:
                    return entry
        return self.table.get(pid, self.table.find(pid, native))

    def with_number(self, number: int) -> Numbered | None:
        """What is known here to have this number now."""
        numbered = self._last_with(number)
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

    def _note(self, entry: Entry) -> None:
        """Know its number; forget whatever had it before, and so must have been closed."""
        numbered = _numbered(entry)
        number = None if numbered is None else numbered.number
        if numbered is None or number is None:
            return
        former = self._last_with(number)
        if isinstance(former, Descriptor):
            former.forget()
            self.table.disown(_NOBODY, former)
        self._numbers[number] = weakref.ref(numbered)

    def _last_with(self, number: int) -> Numbered | None:
        """What was last known to have this number, if there is anything left of it."""
        known = self._numbers.get(number)
        return None if known is None else known()

    def _known_native(self, native: object) -> object:
        """What the table knows a number by, or a layer of a file; all else is known by itself."""
        if isinstance(native, int):
            numbered = self._last_with(native)
            return native if numbered is None else numbered.native
        if is_layer(native):
            with contextlib.suppress(ValueError):
                layers = layers_of(native)
                numbered = None if layers is None else self._last_with(layers[-1].fileno())
                if numbered is not None and numbered.has_layer(native):
                    return numbered.native
        return native


def _numbered(entry: Entry) -> Numbered | None:
    return entry if isinstance(entry, Descriptor) else entry.open_file


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
