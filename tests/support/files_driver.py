"""How to make, adopt, give back and close things of kind `files`: for tests over all kinds."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

from drivers import Driver

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ResourceOrchestrator


class OwnFile:
    """A file for a lock, nobody's: it is closed when the lock is collected."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("locked")

    def fileno(self) -> int:
        """As file objects have it."""
        return self._fd

    def __del__(self) -> None:
        os.close(self._fd)


def drivers(orchestrator: ResourceOrchestrator) -> dict[str, Driver]:
    """Drivers by name.

    A plain descriptor is not closed natively: its number may come round at once, to another kind
    too, and whoever has it next takes it off the books.
    """
    files = orchestrator["files"].manager

    def adopting(make: Callable[[], Any], undo: Callable[[Any], object]) -> Callable[[int], Any]:
        def make_and_adopt(pid: int) -> Any:
            native = make()
            try:
                orchestrator.adopt(pid, native)
            except BaseException:
                undo(native)
                raise
            return native

        return make_and_adopt

    def lock(pid: int) -> Any:
        return files.lock(pid, OwnFile(), timeout=0)

    def close(file: Any) -> None:
        file.close()

    return {
        "file": Driver("files", lambda pid: files.open(pid, os.devnull), files.close, close),
        "descriptor": Driver("files", files.memfd, files.close),
        "temporary file": Driver("files", files.temporary_file, files.close),
        "temporary folder": Driver("files", files.temporary_directory, files.remove, os.rmdir),
        "lock": Driver("files", lock, files.unlock),
        "adopted file": Driver(
            "files", adopting(lambda: tempfile.TemporaryFile("w"), close), files.close, close
        ),
        "adopted descriptor": Driver(
            "files", adopting(lambda: os.memfd_create("adopted"), os.close), files.close
        ),
    }
