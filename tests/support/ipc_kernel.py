"""What the kernel has of IPC, and its two sorts of queues and semaphores by the same names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import posix_ipc
import sysv_ipc

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate_ipc import IpcManager


def is_there(native: Any) -> bool:
    """Whether the kernel has an object of that name or id; none of our tables is asked."""
    if isinstance(native, posix_ipc.MessageQueue):
        # mqueue need not be mounted for that.
        try:
            posix_ipc.MessageQueue(native.name).close()
        except posix_ipc.ExistentialError:
            return False
        return True
    if isinstance(native, posix_ipc.Semaphore):
        # Where the C library keeps it (sem_overview(7)).
        return Path(f"/dev/shm/sem.{native.name[1:]}").exists()
    table = "msg" if isinstance(native, sysv_ipc.MessageQueue) else "sem"
    lines = Path(f"/proc/sysvipc/{table}").read_text().splitlines()[1:]
    return native.id in {int(line.split()[1]) for line in lines}


def remove(native: Any) -> None:
    """Remove it from the system; it may be closed here."""
    if isinstance(native, posix_ipc.MessageQueue):
        posix_ipc.unlink_message_queue(native.name)
    elif isinstance(native, posix_ipc.Semaphore):
        posix_ipc.unlink_semaphore(native.name)
    else:
        native.remove()


class MadeHere:
    """The kernel objects that this test has had to do with, and no others of the machine."""

    def __init__(self) -> None:
        self._natives: dict[str, Any] = {}

    def note(self, native: Any) -> None:
        """Look at this one, too."""
        self._natives[str(native)] = native

    def remaining(self) -> set[str]:
        """Those that the kernel has."""
        return {name for name, native in self._natives.items() if is_there(native)}

    def remove_remaining(self) -> set[str]:
        """Remove those that the kernel has: a test that failed leaves none either."""
        found = self.remaining()
        for name in found:
            remove(self._natives[name])
        return found


@dataclass(frozen=True)
class Sort:
    """One of the two sorts. `open_` takes the owner's object, by whose name or key it is found."""

    name: str
    create_queue: Callable[[int], Any]
    open_queue: Callable[..., Any]
    create_semaphore: Callable[..., Any]
    open_semaphore: Callable[..., Any]
    #: Where a thread that waits for a semaphore sleeps: system calls by number on x86-64.
    sem_calls: frozenset[str]

    def fill(self, queue: Any) -> None:
        """Send until the queue is full: two messages fill it."""
        for _ in range(2):
            queue.send(bytes(8192), timeout=0)


def _posix(ipc: IpcManager) -> Sort:
    return Sort(
        "posix",
        lambda pid: ipc.create_posix_queue(pid, max_messages=2),
        lambda pid, queue: ipc.open_posix_queue(pid, queue.name),
        ipc.create_posix_semaphore,
        lambda pid, sem, **options: ipc.open_posix_semaphore(pid, sem.name, **options),
        sem_calls=frozenset({"202"}),
    )


def _sysv(ipc: IpcManager) -> Sort:
    return Sort(
        "sysv",
        ipc.create_sysv_queue,
        lambda pid, queue: ipc.open_sysv_queue(pid, queue.key),
        ipc.create_sysv_semaphore,
        lambda pid, sem, **options: ipc.open_sysv_semaphore(pid, sem.key, **options),
        sem_calls=frozenset({"65", "220"}),
    )


SORTS: dict[str, Callable[[IpcManager], Sort]] = {"posix": _posix, "sysv": _sysv}
