"""What the kernel says of System V objects, by their keys and ids (proc(5), /proc/sysvipc)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import sysv_ipc

#: The class and the function that removes by id, of each sort.
SORTS: Final[dict[str, tuple[Any, Any]]] = {
    "msg": (sysv_ipc.MessageQueue, sysv_ipc.remove_message_queue),
    "sem": (sysv_ipc.Semaphore, sysv_ipc.remove_semaphore),
    "shm": (sysv_ipc.SharedMemory, sysv_ipc.remove_shared_memory),
}


def ids_by_key(which: str) -> dict[int, int]:
    """The ids of all objects of a sort there are, by their keys; of those with key 0, the last."""
    lines = Path(f"/proc/sysvipc/{which}").read_text().splitlines()[1:]
    return {int(key): int(number) for key, number, *_ in map(str.split, lines)}


def has_id(which: str, number: int) -> bool:
    """Whether there is an object of that id."""
    lines = Path(f"/proc/sysvipc/{which}").read_text().splitlines()[1:]
    return number in {int(line.split()[1]) for line in lines}


def create(which: str, key: int, **options: Any) -> Any:
    """Make an object of a sort under a key that is free."""
    if which == "shm":
        options.setdefault("size", 4096)
    return SORTS[which][0](key, sysv_ipc.IPC_CREX, **options)


def remove(which: str, number: int) -> None:
    """Remove the object of that id, if there is one."""
    if has_id(which, number):
        SORTS[which][1](number)
