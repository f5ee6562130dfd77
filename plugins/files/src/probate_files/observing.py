"""The files that an OS process has open, seen from outside."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from probate import ResourceRecord
from probate.system import links_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

_NAMES: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO"}

_DELETED: Final = " (deleted)"

#: What has its name there is of kind `memory`.
_SHARED_MEMORY: Final = "/dev/shm/"  # noqa: S108  compared


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of files, folders and FIFOs that have a path, or had one, each with its number there."""
    for number, path in links_of(str(process.pid)):
        if not path.startswith("/") or path.startswith(_SHARED_MEMORY):
            continue
        try:
            status = Path(f"/proc/{process.pid}/fd/{number}").stat()
        except FileNotFoundError:
            continue
        name = _NAMES.get(stat.S_IFMT(status.st_mode))
        if name is not None and (path.endswith(_DELETED) or _is_at(path, process.pid, status)):
            yield ResourceRecord.held(
                "files",
                f"{name} {path}",
                process.pid,
                status.st_size if name == "file" else 0,
                number=int(number),
                device=status.st_dev,
                inode=status.st_ino,
            )


def _is_at(path: str, os_pid: int, status: os.stat_result) -> bool:
    """Whether a file is at its path there: a message queue is not, though it seems to have one."""
    try:
        return os.path.samestat(Path(f"/proc/{os_pid}/root{path}").stat(), status)
    except OSError:
        return False
