"""The files that an OS process has open, seen from outside."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from probate.system import is_on_mqueue, links_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from probate import ResourceRecord

_NAMES: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO"}

#: A file that has its name there is of kind `memory`.
_SHARED_MEMORY: Final = "/dev/shm/"  # noqa: S108  compared


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of files, folders and FIFOs that have a path, or had one, each with its number there."""
    # Not before: the module of records brings pydantic along, which takes long.
    from probate import ResourceRecord

    for number, path in links_of(process.pid):
        if not path.startswith("/"):
            continue
        opened = f"/proc/{process.pid}/fd/{number}"
        try:
            status = Path(opened).stat()
            is_queue = is_on_mqueue(opened)
        except FileNotFoundError:
            continue
        name = _NAMES.get(stat.S_IFMT(status.st_mode))
        if name == "file" and (is_queue or path.startswith(_SHARED_MEMORY)):
            continue
        if name is not None:
            yield ResourceRecord.held(
                "files",
                f"{name} {path}",
                process.pid,
                status.st_size if name == "file" else 0,
                number=int(number),
                device=status.st_dev,
                inode=status.st_ino,
            )
