"""The file behind a temporary map."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import final


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
        try:
            own = os.fstat(self._file.fileno())
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(self.path)
                if (status.st_dev, status.st_ino) == (own.st_dev, own.st_ino):
                    os.unlink(self.path)  # noqa: PTH108  as lstat, on the same string
                    return True
        finally:
            self._file.close()
        return False
