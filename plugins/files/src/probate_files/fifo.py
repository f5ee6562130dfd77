"""FIFOs: at the end nobody is left waiting in open(2) for the other side."""

from __future__ import annotations

import contextlib
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, final

from probate.system import built
from probate_files.entry import Entry
from probate_files.pinned import PinnedPath

if TYPE_CHECKING:
    from pathlib import Path

    from probate import Outcome
    from probate.system import OwnedDescriptor


@final
class Fifo(Entry):
    """A named pipe that was made here. Its open ends are resources of their own."""

    __slots__ = ("_path", "_pin")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pin = PinnedPath(os.fspath(path))
        if not stat.S_ISFIFO(self._pin.status.st_mode):
            raise FileExistsError(f"replaced while it was made, by what is no FIFO: {path}")

    def __repr__(self) -> str:
        return f"FIFO {self._pin.path!r} (inode {self._pin.status.st_ino})"

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """What pins it."""
        return (self._pin.descriptor,)

    @property
    def pin(self) -> PinnedPath:
        """What is at the path that it was made with."""
        return self._pin

    @property
    def native(self) -> Path:
        """The path that it was made with."""
        return self._path

    def release(self) -> Outcome:
        """Let everybody through who waits in open(2), and unlink it. See `PinnedPath.unlink`."""
        # Opened for both, which needs nobody else (fifo(7)), it is the other side of whoever
        # waits; when it is closed again, they see end-of-file or EPIPE.
        try:
            other_side = self._pin.open(os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            self._pin.unlink()
            raise
        try:
            # Before it is closed: who still finds the path meets a FIFO with two sides.
            return self._pin.unlink()
        finally:
            os.close(other_side)


def make(path: Path, mode: int) -> Fifo:
    """Make a FIFO. Raises OSError, FileExistsError included."""
    return built(partial(os.mkfifo, path, mode), lambda _: Fifo(path), lambda _: _undo(path))


def _undo(path: Path) -> None:
    """Unlink what was made, but not by what it was replaced."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISFIFO(path.lstat().st_mode):
            path.unlink()
