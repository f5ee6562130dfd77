"""The io_uring instances that an OS process has open, seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probate import ResourceRecord
from probate.system import links_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of io_uring instances, each with its number there; other rings are shared memory."""
    for number, link in links_of(str(process.pid)):
        if link == "anon_inode:[io_uring]":
            yield ResourceRecord.held("rings", "io_uring", process.pid, number=int(number))
