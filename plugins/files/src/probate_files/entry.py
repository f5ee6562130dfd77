"""What every owned thing can do, whatever it is."""

from __future__ import annotations

import fcntl
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probate import Outcome
    from probate.system import OwnedDescriptor
    from probate_files.pinned import PinnedPath


class Entry(ABC):
    """One owned thing, as the table has it. Its repr is its description."""

    __slots__ = ("__weakref__",)

    #: Whether it lives in memory, so that neither a flush nor a release can wait for anything.
    is_in_memory: bool = False

    @property
    @abstractmethod
    def native(self) -> object:
        """What the user has of it, by which it is found."""

    @property
    def needs_this_thread(self) -> bool:
        """Whether the calling thread alone can give it back."""
        return False

    @property
    def pin(self) -> PinnedPath | None:
        """The path that is removed by its release, and by nobody else; None if none is."""
        return None

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """The descriptor numbers that its release closes."""
        return ()

    @abstractmethod
    def release(self) -> Outcome:
        """Give it back; waits for as long as the kernel takes."""


def is_in_memory(fd: int) -> bool:
    """Whether it is a regular file on a tmpfs, or a memfd: those alone have seals (fcntl(2))."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True
