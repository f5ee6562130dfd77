"""Descriptors that nothing is buffered in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, final

from probate import Outcome
from probate_files.entry import PATIENCE
from probate_files.filesystem import is_in_memory
from probate_files.identity import identify, is_still, path_of

if TYPE_CHECKING:
    import concurrent.futures

    from probate_files.locks import FileLock


@final
class Descriptor:
    """A descriptor number that no file object wraps."""

    __slots__ = ("__weakref__", "_is_over", "identity", "is_in_memory", "locks", "native", "path")

    def __init__(self, fd: int) -> None:
        #: Raises OSError (EBADF) if it is not open.
        self.identity = identify(fd)
        self.is_in_memory = is_in_memory(fd, self.identity)
        self.path = path_of(fd)
        self.native = fd
        #: Locks that were taken through it here.
        self.locks: list[FileLock] = []
        self._is_over = False

    def __repr__(self) -> str:
        return f"fd {self.native}: {self.path!r} (mode {self.identity.mode}, {self.identity})"

    @property
    def number(self) -> int | None:
        """The number, while it refers to the same file; else None."""
        if self._is_over or not is_still(self.native, self.identity):
            return None
        return self.native

    def forget(self) -> None:
        """Never touch the number again: it was closed, and is another's."""
        self._is_over = True

    def quiesce(self) -> concurrent.futures.Future[None] | None:
        """Nothing is buffered."""
        return None

    def release(self, patience: float = PATIENCE) -> Outcome:  # noqa: ARG002  waits for nobody
        """Close it while it is still the same file.

        A thread blocked in it is not woken by that (close(2)): its call ends when its peer does.
        """
        fd = self.number
        if fd is None:
            return Outcome.ALREADY_GONE
        # Once only: the next to get the number may well have opened the very same file.
        self._is_over = True
        os.close(fd)
        return Outcome.RELEASED
