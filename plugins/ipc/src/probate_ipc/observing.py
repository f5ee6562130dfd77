"""The pipes, queues and semaphores that an OS process has open, seen from outside."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from probate import ResourceRecord
from probate.system import file_maps, links_of, read_proc

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

#: What a POSIX queue begins with when it is read as a file (mq_overview(7)).
_QUEUE: Final = b"QSIZE:"


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of pipes, POSIX message queues, and named POSIX semaphores.

    SysV queues and semaphores are nobody's: the kernel does not know who uses them (sysvipc(7)).
    """
    for number, link in links_of(str(process.pid)):
        if link.startswith("pipe:"):
            text = f"pipe {link.removeprefix('pipe:')}"
        elif link.startswith("/") and link.count("/") == 1 and _is_queue(process.pid, number):
            text = f"POSIX queue {link}"
        else:
            continue
        yield ResourceRecord.held("ipc", text, process.pid, number=int(number))
    semaphores = [each for each in file_maps(process.pid) if each.sort == "semaphore"]
    names = _semaphores_of(process.pid) if semaphores else {}
    for each in semaphores:
        text = f"POSIX semaphore {names.get(each.inode, 'without a name')}"
        yield ResourceRecord.held("ipc", text, process.pid, each.nbytes, inode=each.inode)


def _semaphores_of(os_pid: int) -> dict[int, str]:
    """Name the semaphores by inode: who has made one has mapped it by another name, now gone."""
    with suppress(OSError), os.scandir(f"/proc/{os_pid}/root/dev/shm") as entries:
        return {
            each.inode(): f"/{each.name.removeprefix('sem.')}"
            for each in entries
            if each.name.startswith("sem.")
        }
    return {}


def _is_queue(os_pid: int, number: str) -> bool:
    with suppress(OSError):
        return read_proc(f"/proc/{os_pid}/fd/{number}").startswith(_QUEUE)
    return False
