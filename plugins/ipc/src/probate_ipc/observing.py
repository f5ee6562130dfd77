"""The pipes, queues and semaphores that an OS process has open, seen from outside."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from probate.system import file_maps, is_on_mqueue, links_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from probate import ResourceRecord


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of pipes, POSIX message queues, and named POSIX semaphores.

    SysV queues and semaphores are nobody's: the kernel does not know who uses them (sysvipc(7)).
    """
    # Not before: the module of records brings pydantic along, which takes long.
    from probate import ResourceRecord

    for number, link in links_of(process.pid):
        if link.startswith("pipe:"):
            text = f"pipe {link.removeprefix('pipe:')}"
        elif link.startswith("/") and _is_queue(f"/proc/{process.pid}/fd/{number}"):
            text = f"POSIX queue /{Path(link).name}"
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


def _is_queue(path: str) -> bool:
    with suppress(OSError):
        return is_on_mqueue(path) and Path(path).is_file()
    return False
