"""The files that an OS process has mapped, seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probate import ResourceRecord
from probate.system import file_maps

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of shared maps of files, and of anonymous ones; private ones are libraries, mostly."""
    for each in file_maps(process.pid):
        if each.is_shared and each.sort == "file":
            how = "to be written to" if each.is_writable else "to be read"
            text = f"map of {each.path}, {how}"
            yield ResourceRecord.held("mmap", text, process.pid, each.nbytes, inode=each.inode)
