"""The shared memory that an OS process has attached, seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probate import ResourceRecord
from probate.system import file_maps

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of POSIX and SysV shared memory, by name or id."""
    for each in file_maps(process.pid):
        if each.sort == "SysV segment":
            text, identity = f"SysV shared memory {each.inode}", {"id": each.inode}
        elif each.sort == "shared memory":
            text, identity = f"shared memory {each.path}", {"inode": each.inode}
        else:
            continue
        yield ResourceRecord.held("memory", text, process.pid, each.nbytes, **identity)
