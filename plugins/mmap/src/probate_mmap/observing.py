"""The files that an OS process has mapped, seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probate.system import file_maps

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from probate import ResourceRecord


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of shared maps of files, and of anonymous ones; private ones are libraries, mostly."""
    # Not before: the module of records brings pydantic along, which takes long.
    from probate import ResourceRecord

    for each in file_maps(process.pid):
        if each.is_shared and each.sort == "file":
            how = "to be written to" if each.is_writable else "to be read"
            text = f"map of {each.path}, {how}"
            yield ResourceRecord.held("mmap", text, process.pid, each.nbytes, inode=each.inode)
