"""The ownership table, and which entry has which descriptor number.

A number is all that the user has of a plain descriptor, and the kernel gives it out again. So the
table, which finds a thing by its native object, is told to forget a descriptor that was closed
directly as soon as its number turns up anew.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, final

from probate import AlreadyOwnedError, OwnershipTable, forget_in_forked_child
from probate_files.descriptor import Descriptor
from probate_files.openfile import OpenFile
from probate_files.temporary import TemporaryFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ResourceId
    from probate_files.entry import Entry
    from probate_files.locks import FileLock

#: What has a number.
Numbered = Descriptor | OpenFile

E = TypeVar("E", bound="Entry")
T = TypeVar("T")

#: Somebody to ask the table for, when the question is who owns a thing.
_NOBODY: Final = -1

#: Seconds that a cleanup may take between closing a number and taking it off the table.
_OFF_THE_TABLE: Final = 5.0


@final
class FileTable:
    """Who owns what; and what was last known to have a number, which says nothing of owners."""

    __slots__ = ("__weakref__", "_numbers", "table")

    def __init__(self) -> None:
        self.table: OwnershipTable[Entry] = OwnershipTable("files", identity=_native_of)
        #: Without callbacks, which each end would pay for: no more than there are numbers.
        self._numbers: dict[int, weakref.ref[Numbered]] = {}
        forget_in_forked_child(self)

    def forget_parent(self) -> None:
        """Know no numbers, in a forked child."""
        self._numbers = {}

    def acquire(self, pid: int, make: Callable[[], E]) -> E:
        """Make a thing and have `pid` own it, or have nothing made; as the table's `acquire`."""
        made: list[E] = []

        def once() -> E:
            if not made:
                made.append(make())
                self._note(made[0])
            return made[0]

        def may_clash() -> bool:
            return bool(made) and isinstance(made[0], Descriptor)

        try:
            _until_off_the_table(lambda: self.table.acquire(pid, once, _keep), may_clash)
        except BaseException:
            for each in made:
                each.release()
            raise
        return made[0]

    def adopt(self, pid: int, entry: Entry) -> ResourceId:
        """Have `pid` own a thing. Raises what `OwnershipTable.add` raises.

        AlreadyOwnedError also for another object with the same descriptor.
        """
        numbered = _numbered(entry)
        number = None if numbered is None else numbered.number
        if number is not None:
            other = self._last_with(number)
            if other is not None and other.number == number:
                owner = self.owner_of(other)
                if owner is not None:
                    raise AlreadyOwnedError(self.table.kind, self.table.describe(entry), owner)
        self._note(entry)
        return _until_off_the_table(
            lambda: self.table.add(pid, entry), lambda: isinstance(entry, Descriptor)
        )

    def find(self, pid: int, native: object) -> ResourceId:
        """The id under which `pid` owns it. Raises NotOwnedError."""
        if isinstance(native, int):
            numbered = self._last_with(native)
            return self.table.find(pid, native if numbered is None else numbered.native)
        if isinstance(native, Path):
            for resource_id, entry in self.table.owned(pid):
                if entry.native == native:
                    return resource_id
        return self.table.find(pid, native)

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
                file.locks = [each for each in file.locks if self.owner_of(each) is not None]
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
            self.table.disown(_NOBODY, former.native)
        self._numbers[number] = weakref.ref(numbered)

    def _last_with(self, number: int) -> Numbered | None:
        """What was last known to have this number, if there is anything left of it."""
        known = self._numbers.get(number)
        return None if known is None else known()


def _until_off_the_table(own: Callable[[], T], may_clash: Callable[[], bool]) -> T:
    """Own a number, waiting for the cleanup that has just closed it on another thread.

    In between it is nobody's, and yet on the table: between the kernel's close and ours.
    """
    over = time.monotonic() + _OFF_THE_TABLE
    pause = 0.0
    while True:
        try:
            return own()
        except AlreadyOwnedError as error:
            if error.owner is not None or not may_clash() or time.monotonic() > over:
                raise
        time.sleep(pause)
        pause = 0.001


def _keep(_: object) -> None:
    """In place of a release: whether to try once more is decided elsewhere."""


def _native_of(entry: Entry) -> object:
    return entry.native


def _numbered(entry: object) -> Numbered | None:
    if isinstance(entry, TemporaryFile):
        return entry.file
    return entry if isinstance(entry, (Descriptor, OpenFile)) else None
