"""The files that an OS process has mapped (proc(5), /proc/PID/maps)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, final

from probate.system.osprocess import read_proc

if TYPE_CHECKING:
    from collections.abc import Iterator

    MapSort = Literal["file", "shared memory", "semaphore", "SysV segment", "no file"]

#: By what the kernel calls it: where the C library has its semaphores, and shared memory, for which
#: it makes files (sem_overview(7), shm_overview(7)); and what it says of SysV segments, by their
#: key.
_SORTS: Final[dict[str, MapSort]] = {
    "/dev/shm/sem.": "semaphore",  # noqa: S108  compared
    "/dev/shm/": "shared memory",  # noqa: S108  compared
    "/SYSV": "SysV segment",
}

#: What a line break in a path is written as, and nothing else is: proc(5).
_LINE_BREAK: Final = rb"\012"


@final
class FileMap(NamedTuple):
    """Describes one mapping of a file, or of what the kernel shows as one."""

    #: As the kernel has it: "/dev/shm/name", "/SYSV00000000 (deleted)", "anon_inode:[io_uring]".
    path: str
    inode: int
    nbytes: int
    is_shared: bool
    is_writable: bool

    @property
    def sort(self) -> MapSort:
        """What the kernel shows as a file. A SysV segment's inode is its id."""
        if not self.path.startswith("/"):
            return "no file"
        return next((sort for start, sort in _SORTS.items() if self.path.startswith(start)), "file")


def file_maps(os_pid: int) -> Iterator[FileMap]:
    """Yield the files that a process has mapped, by address. Raises OSError if it is gone."""
    for line in read_proc(f"/proc/{os_pid}/maps").split(b"\n"):
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or fields[5].startswith(b"["):
            continue
        start, _, end = fields[0].partition(b"-")
        yield FileMap(
            path=os.fsdecode(fields[5].replace(_LINE_BREAK, b"\n")),
            inode=int(fields[4]),
            nbytes=int(end, 16) - int(start, 16),
            is_shared=fields[1].endswith(b"s"),
            is_writable=fields[1][1:2] == b"w",
        )
