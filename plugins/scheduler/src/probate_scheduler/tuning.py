"""Niceness and CPU affinity of an OS process, changed and put back.

Both belong to single threads on Linux (sched(7), sched_setaffinity(2)): all threads of the
process are changed, and a thread started later has what the thread that started it has. The
kernel takes them by number only. What /proc/PID/task lists are this process's threads, as long as
it has not been reaped, which its pidfd tells; it is asked right before each change.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import OsProcess

V = TypeVar("V")


@final
class Setting(Generic[V]):
    """One attribute of all threads of an OS process, and what it was before."""

    __slots__ = ("_applied", "_before", "_name", "_process", "_read", "_write")

    def __init__(
        self,
        name: str,
        process: OsProcess,
        read: Callable[[int], V],
        write: Callable[[int, V], None],
    ) -> None:
        self._name = name
        self._process = process
        self._read = read
        self._write = write
        #: By thread, from before the first change.
        self._before: dict[int, V] = {}
        #: What the kernel made of the last change: it may take less than it is given.
        self._applied: set[V] = set()

    def apply(self, value: V) -> None:
        """Set it for all threads, or for none.

        Raises ProcessLookupError if the process is gone, and what the kernel says: PermissionError,
        or OSError (EINVAL).
        """
        changed: dict[int, V] = {}
        applied: set[V] = set()
        try:
            # Twice, for threads that were started meanwhile by those whose turn had not come.
            for _ in range(2):
                for thread in self._threads() - changed.keys():
                    with contextlib.suppress(ProcessLookupError):
                        changed[thread] = self._exchange(thread, value)
                        applied.add(self._read(thread))
            self._check_there()
        except OSError:
            for thread, before in changed.items():
                with contextlib.suppress(OSError):
                    self._exchange(thread, before)
            raise
        for thread, before in changed.items():
            # A thread that came with a value of ours had it from one that was changed before.
            is_ours = before in self._applied
            self._before.setdefault(thread, self._original() if is_ours else before)
        self._applied = applied

    def restore(self) -> None:
        """Put back what was there, where it still is as we set it.

        Raises PermissionError: a niceness can be worsened by everybody, and bettered with
        CAP_SYS_NICE or RLIMIT_NICE only (setpriority(2)).
        """
        refused: OSError | None = None
        with contextlib.suppress(ProcessLookupError):
            for thread in self._threads() if self._before else ():
                wanted = self._before.get(thread, self._original())
                try:
                    if self._read(thread) in self._applied - {wanted}:
                        self._exchange(thread, wanted)
                except ProcessLookupError:
                    continue
                except PermissionError as error:
                    refused = error
        if refused is not None:
            raise PermissionError(
                refused.errno,
                f"{self._name} of OS process {self._process.os_pid} stays as it was set: the "
                f"kernel does not let this host put it back to {self._original()!r} (see "
                "CAP_SYS_NICE, RLIMIT_NICE)",
            ) from refused

    def _original(self) -> V:
        """What the first thread had, which is what one tells of the process."""
        first = next(iter(self._before.values()))
        return self._before.get(self._process.os_pid, first)

    def _exchange(self, thread: int, value: V) -> V:
        """Set it for one thread; return what it was."""
        before = self._read(thread)
        self._check_there()
        self._write(thread, value)
        return before

    def _threads(self) -> set[int]:
        threads: set[int] = set()
        with contextlib.suppress(FileNotFoundError):
            tasks = Path(f"/proc/{self._process.os_pid}/task")
            threads |= {int(task.name) for task in tasks.iterdir()}
        self._check_there()
        return threads

    def _check_there(self) -> None:
        if not self._process.is_there():
            raise ProcessLookupError(f"OS process {self._process.os_pid} is gone")


def niceness_of(process: OsProcess) -> Setting[int]:
    """Return the niceness, -20 to 19, to be set and put back."""
    read = partial(os.getpriority, os.PRIO_PROCESS)
    return Setting("the niceness", process, read, partial(os.setpriority, os.PRIO_PROCESS))


def affinity_of(process: OsProcess) -> Setting[frozenset[int]]:
    """Return the CPUs that it may run on, to be set and put back."""

    def read(thread: int) -> frozenset[int]:
        return frozenset(os.sched_getaffinity(thread))

    return Setting("the CPU affinity", process, read, os.sched_setaffinity)
