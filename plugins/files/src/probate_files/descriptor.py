"""Descriptors that nothing is buffered in, and what the kernel says of any."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, final

from probate import Outcome
from probate.system import FileIdentity, OwnedDescriptor, path_of
from probate_files.entry import is_in_memory
from probate_files.openfile import FileEntry

if TYPE_CHECKING:
    from probate_files.locks import FileLock
    from probate_files.openfile import OpenFile


@final
class Descriptor(FileEntry):
    """A descriptor number, without a file object as far as is known."""

    __slots__ = ("_above", "descriptor", "is_in_memory", "locks", "path")

    def __init__(self, fd: int) -> None:
        #: Raises OSError (EBADF) if it is not open.
        self.descriptor = OwnedDescriptor(fd)
        self.is_in_memory = is_in_memory(fd)
        self.path = path_of(fd)
        #: Locks that were taken through it here.
        self.locks: list[FileLock] = []
        #: File objects that have the number as well.
        self._above: list[OpenFile] = []

    def __repr__(self) -> str:
        return f"fd {self.fd}: {self.path!r} (mode {self.identity.mode}, {self.identity})"

    @property
    def fd(self) -> int:
        """The number that it had when it was acquired."""
        return self.descriptor.number

    @property
    def identity(self) -> FileIdentity:
        """The file that the number referred to then."""
        return self.descriptor.identity

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """The number."""
        return (self.descriptor,)

    @property
    def native(self) -> Descriptor:
        """Itself: the number may mean another file by now, or the same one opened anew."""
        return self

    @property
    def open_file(self) -> OpenFile | None:
        """A file object that has the number as well, if one was found."""
        return self._above[0] if self._above else None

    def has_layer(self, thing: object) -> bool:
        """Whether it is a layer of such a file object."""
        return any(each.has_layer(thing) for each in self._above)

    def put_on_top(self, file: OpenFile) -> None:
        """Have this file object, which has the number as well, flushed and closed first."""
        if not any(file.file is each.file for each in self._above):
            self._above.append(file)

    @property
    def number(self) -> int | None:
        """The number, while it refers to the same file; else None."""
        return self.fd if self.descriptor.is_ours else None

    def release(self) -> Outcome:
        """Close it while it is still the same file, and before it what stands above it.

        A thread blocked in it is not woken by that (close(2)): its call ends when its peer does.
        """
        with contextlib.ExitStack() as last:
            outcomes: list[Outcome] = []
            last.callback(lambda: outcomes.append(self.descriptor.close()))
            for file in self._above:
                last.callback(lambda release: outcomes.append(release()), file.release)
        return Outcome.RELEASED if Outcome.RELEASED in outcomes else Outcome.ALREADY_GONE
