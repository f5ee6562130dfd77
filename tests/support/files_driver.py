"""How to make, adopt, give back and close things of kind `files`: for tests over all kinds."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

from drivers import Driver

from probate import AlreadyOwnedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ResourceOrchestrator


#: More than any test locks at a time.
_COUNT = 48

#: Files for locks, nobody's, used again and again; made before any test looks at what is open.
_files = [os.fdopen(os.memfd_create("locked"), "w+b", closefd=False) for _ in range(_COUNT)]


def drivers(orchestrator: ResourceOrchestrator) -> dict[str, Driver]:
    """Drivers by name.

    A plain descriptor is not closed natively: its number may come round at once, to another kind
    too, and whoever has it next takes it off the table.
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
        for file in _files:
            try:
                return files.lock(pid, file, timeout=0)
            except AlreadyOwnedError:
                continue
        raise AssertionError(f"more than {_COUNT} locks at a time")

    def close(file: Any) -> None:
        file.close()

    return {
        "file": Driver("files", lambda pid: files.open(pid, os.devnull), files.close, close),
        "descriptor": Driver("files", files.memfd, files.close),
        "temporary file": Driver("files", files.temporary_file, files.close),
        "temporary folder": Driver("files", files.temporary_directory, files.close, os.rmdir),
        "lock": Driver("files", lock, files.close),
        "adopted file": Driver(
            "files", adopting(lambda: tempfile.TemporaryFile("w"), close), files.close, close
        ),
        "adopted descriptor": Driver(
            "files", adopting(lambda: os.memfd_create("adopted"), os.close), files.close
        ),
    }
