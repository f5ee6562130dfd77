"""What the kernel has noticed of a program that makes shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from probate_memory.arguments import path_of

if TYPE_CHECKING:
    from probate import ResourceRecord
    from probate.journal import Notice

#: What named semaphores have in the same folder before their names (sem_overview(7)).
_SEMAPHORE: Final = "sem."


def noticed(notice: Notice) -> ResourceRecord | None:
    """Say of segments what they are: shm_open(3) opens a file in a folder of its own."""
    if notice.call == "shmget":
        return notice.record("memory", f"SysV segment with key {notice.name}")
    if (
        notice.call == "open"
        and notice.name == path_of(notice.basename)
        and not notice.basename.startswith(_SEMAPHORE)
    ):
        return notice.record("memory", f"shared memory {notice.basename}")
    return None
