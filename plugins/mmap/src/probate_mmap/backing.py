"""The file behind a temporary map."""

from __future__ import annotations

import os
import tempfile
from typing import final

from probate import Outcome
from probate.system import close_if_same, identify, unlink_if_same


@final
class BackingFile:
    """A new file of so many bytes, held open so that its inode number stays its own.

    Raises OSError, ENOSPC included: the blocks are there before anybody maps them, so that no
    access to the map can die of a full disk (SIGBUS, mmap(2)).
    """

    __slots__ = ("_fd", "_identity", "_status", "path")

    def __init__(self, directory: str, length: int) -> None:
        self._fd = -1
        self._fd, self.path = tempfile.mkstemp(prefix="probate-", suffix=".map", dir=directory)
        self._identity, self._status = identify(self._fd), os.fstat(self._fd)
        try:
            os.posix_fallocate(self._fd, 0, length)
        except BaseException:
            self.remove()
            raise

    def __del__(self) -> None:
        self._close()

    def fileno(self) -> int:
        """Its descriptor; -1 when closed."""
        return self._fd

    def remove(self) -> bool:
        """Unlink the path if it is still this file's, and close; whether it was. Idempotent."""
        if self._fd == -1:
            return False
        try:
            # The map still is there, which pins the inode even if the number is another's by now.
            return unlink_if_same(self.path, self._status) is Outcome.RELEASED
        finally:
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd != -1:
            close_if_same(fd, self._identity)
