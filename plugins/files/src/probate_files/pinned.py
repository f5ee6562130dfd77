"""Paths, pinned so that no successor is taken for what was there.

An O_PATH descriptor (open(2)) keeps the inode, and so its number cannot be given to another file;
device and inode are compared before anything is unlinked. It neither reads nor writes, so that a
pinned FIFO has no more readers and writers than it would have.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Final, final

from probate import Outcome, RefusedResourceError
from probate.journal import path_identity
from probate.system import open_owned, unlink_if_same

_PIN: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@final
class PinnedPath:
    """What is at `path` now, held so that it can be told from whatever may be there later.

    Raises OSError if nothing is there.
    """

    __slots__ = ("_is_over", "descriptor", "path", "status")

    def __init__(self, path: str) -> None:
        self.path = path
        self._is_over = False
        #: What keeps it from being another's.
        self.descriptor = open_owned(partial(os.open, path, _PIN))
        #: What it was when it was pinned.
        self.status = os.fstat(self.descriptor.number)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            self.close()

    def identity(self) -> dict[str, Any]:
        """Return what tells it from a later one of its path, for the journal. Raises OSError."""
        return path_identity(os.path.abspath(self.path), self.descriptor.number)  # noqa: PTH100  as in arguments

    def open(self, flags: int) -> int:
        """Open the very thing, wherever it has been moved (proc(5), /proc/pid/fd).

        Raises OSError, RefusedResourceError if it is held no more.
        """
        fd = os.open(f"/proc/self/fd/{self.descriptor.number}", flags | os.O_CLOEXEC)
        if os.path.samestat(os.fstat(fd), self.status):
            return fd
        os.close(fd)
        raise self._lost()

    def is_in_place(self) -> bool:
        """Whether it is held still, and at its path, so that it can be removed.

        What was moved away was meant to be kept, as a file that is written under a temporary
        name and then renamed. Raises RefusedResourceError if it was moved away and something
        else is in its place, or if that cannot be told, since it is held no more.
        """
        if self._is_over:
            return False
        try:
            there = os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not self.descriptor.is_ours:
            raise self._lost()
        if os.path.samestat(there, self.status):
            return True
        if os.fstat(self.descriptor.number).st_nlink == 0:
            return False
        raise RefusedResourceError(
            f"something else is at {self.path!r} now, and what was there is elsewhere: "
            "both are left alone; remove what is no longer wanted"
        )

    def unlink(self) -> Outcome:
        """Remove it, if it is no folder and `is_in_place`; let go of it."""
        try:
            if self.is_in_place():
                return unlink_if_same(self.path, self.status)
            return Outcome.ALREADY_GONE
        finally:
            self.close()

    def close(self) -> None:
        """Hold it no longer. Idempotent."""
        self._is_over = True
        self.descriptor.close()

    def _lost(self) -> RefusedResourceError:
        return RefusedResourceError(
            f"somebody else has closed descriptor {self.descriptor.number}, by which {self.path!r} "
            "was told from a successor's: it is left alone; remove it if it is no longer wanted"
        )
