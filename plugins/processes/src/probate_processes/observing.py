"""The children of an OS process, seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probate.system import start_time_of
from probate_processes.accounting import describe
from probate_processes.procfs import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from probate import ResourceRecord


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of its children, dead ones that it has not waited for included."""
    # Not before: the module of records brings pydantic along, which takes long.
    from probate import ResourceRecord

    for os_pid in children_of(process.pid):
        try:
            start_time = start_time_of(os_pid)
        except ProcessLookupError:
            continue
        text = f"OS process {describe(os_pid)}"
        yield ResourceRecord.held("processes", text, process.pid, pid=os_pid, start_time=start_time)
