"""The io_uring instances that an OS process has open, seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probate.system import links_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from probate import ResourceRecord


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of io_uring instances, each with its number there; other rings are shared memory."""
    # Not before: the module of records brings pydantic along, which takes long.
    from probate import ResourceRecord

    for number, link in links_of(process.pid):
        if link == "anon_inode:[io_uring]":
            yield ResourceRecord.held("rings", "io_uring", process.pid, number=int(number))
