"""The file behind a temporary map."""

from __future__ import annotations

import os
import tempfile
from typing import final

from probate import Outcome
from probate.system import unlink_if_same


@final
class BackingFile:
    """A new file of so many bytes, held open so that its inode number stays its own.

    Raises OSError, ENOSPC included: the blocks are there before anybody maps them, so that no
    access to the map can die of a full disk (SIGBUS, mmap(2)).
    """

    __slots__ = ("_file", "path")

    def __init__(self, directory: str, length: int) -> None:
        fd, self.path = tempfile.mkstemp(prefix="probate-", suffix=".map", dir=directory)
        self._file = os.fdopen(fd, "r+b", buffering=0)
        try:
            os.posix_fallocate(fd, 0, length)
        except BaseException:
            self.remove()
            raise

    def fileno(self) -> int:
        """Its descriptor."""
        return self._file.fileno()

    def remove(self) -> bool:
        """Unlink the path if it is still this file's, and close; whether it was. Idempotent."""
        if self._file.closed:
            return False
        with self._file:
            found = unlink_if_same(self.path, os.fstat(self._file.fileno()))
        return found is Outcome.RELEASED
