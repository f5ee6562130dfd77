"""The file behind a temporary map."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, final

from probate import Outcome, RefusedResourceError
from probate.journal import NEW, path_identity
from probate.system import opened, unlink_if_same


@final
class BackingFile:
    """A new file of so many bytes, held open so that its inode number stays its own.

    Raises OSError, FileExistsError and ENOSPC included: the blocks are there before anybody maps
    them, so that no access to the map can die of a full disk (SIGBUS, mmap(2)).
    """

    __slots__ = ("_is_over", "_status", "descriptor", "path")

    def __init__(self, path: str, length: int) -> None:
        self.path = path
        self._is_over = False
        #: What pins its inode.
        self.descriptor, self._status = opened(
            partial(os.open, path, NEW, 0o600),
            lambda owned: (owned, os.fstat(owned.number)),
            partial(os.unlink, path),
        )
        try:
            os.posix_fallocate(self.descriptor.number, 0, length)
        except BaseException:
            self.remove(is_mapped=False)
            raise

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            self.descriptor.close()

    def fileno(self) -> int:
        """Its descriptor."""
        return self.descriptor.number

    def identity(self) -> dict[str, Any]:
        """What tells it from a later one of its path, for the journal."""
        return path_identity(self.path, self.descriptor.number)

    def remove(self, *, is_mapped: bool) -> bool:
        """Unlink the path if it is still this file's, and close; whether it was. Idempotent.

        A map of it pins the inode as well, if the number is another's by now. Raises
        RefusedResourceError if nothing does, so that it cannot be told from a successor's.
        """
        if self._is_over:
            return False
        self._is_over = True
        try:
            if not is_mapped and not self.descriptor.is_ours:
                raise RefusedResourceError(
                    f"somebody else has closed descriptor {self.descriptor.number}, by which "
                    f"{self.path!r} was told from a successor's: remove it if it is not wanted"
                )
            return unlink_if_same(self.path, self._status) is Outcome.RELEASED
        finally:
            self.descriptor.close()
