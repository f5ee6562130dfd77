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
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import OsProcess

V = TypeVar("V")

#: How often new threads are looked for, that were started while the others were changed.
_PASSES: Final = 8


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
        #: By thread, as the kernel took it: it may take less than it is given.
        self._applied: dict[int, V] = {}

    def apply(self, value: V) -> None:
        """Set it for all threads, or for none.

        Raises ProcessLookupError if the process is gone, and what the kernel says: PermissionError,
        or OSError (EINVAL).
        """
        changed: dict[int, V] = {}
        try:
            for _ in range(_PASSES):
                new = [thread for thread in self._threads() if thread not in changed]
                for thread in new:
                    with contextlib.suppress(ProcessLookupError):
                        before = self._read(thread)
                        self._check_there()
                        self._write(thread, value)
                        changed[thread] = before
                if not new:
                    break
        except OSError:
            for thread, before in changed.items():
                with contextlib.suppress(OSError):
                    self._write(thread, before)
            raise
        self._check_there()
        original = self._original()
        for thread, before in changed.items():
            # A thread that came with a value of ours had it from one that was changed before.
            is_ours = original is not None and before in self._applied.values()
            self._before.setdefault(
                thread, original if is_ours and original is not None else before
            )
            with contextlib.suppress(ProcessLookupError):
                self._applied[thread] = self._read(thread)

    def restore(self) -> None:
        """Put back what was there, where it still is as we set it.

        Raises PermissionError: a niceness can be worsened by everybody, and bettered with
        CAP_SYS_NICE or RLIMIT_NICE only (setpriority(2)).
        """
        ours = set(self._applied.values())
        before, original = self._before, self._original()
        self._before, self._applied = {}, {}
        if original is None:
            return
        refused: OSError | None = None
        with contextlib.suppress(ProcessLookupError):
            for thread in self._threads():
                with contextlib.suppress(ProcessLookupError):
                    now = self._read(thread)
                    wanted = before.get(thread, original)
                    if now in ours and now != wanted:
                        self._check_there()
                        try:
                            self._write(thread, wanted)
                        except PermissionError as error:
                            refused = error
        if refused is not None:
            raise PermissionError(
                refused.errno,
                f"{self._name} of OS process {self._process.os_pid} stays as it was set: the "
                f"kernel does not let this host put it back to {original!r} (see CAP_SYS_NICE, "
                "RLIMIT_NICE)",
            ) from refused

    def _original(self) -> V | None:
        """What the first thread had, which is what one tells of the process; None if unchanged."""
        return self._before.get(self._process.os_pid, next(iter(self._before.values()), None))

    def _threads(self) -> list[int]:
        threads: list[int] = []
        with contextlib.suppress(FileNotFoundError):
            tasks = Path(f"/proc/{self._process.os_pid}/task")
            threads += [int(task.name) for task in tasks.iterdir()]
        self._check_there()
        return threads

    def _check_there(self) -> None:
        if not self._process.is_there():
            raise ProcessLookupError(f"OS process {self._process.os_pid} is gone")


@final
class Tuning:
    """Niceness and affinity of one OS process."""

    __slots__ = ("affinity", "nice")

    def __init__(self, process: OsProcess) -> None:
        self.nice: Setting[int] = Setting(
            "the niceness",
            process,
            partial(os.getpriority, os.PRIO_PROCESS),
            partial(os.setpriority, os.PRIO_PROCESS),
        )
        self.affinity: Setting[frozenset[int]] = Setting(
            "the CPU affinity",
            process,
            lambda thread: frozenset(os.sched_getaffinity(thread)),
            os.sched_setaffinity,
        )

    def restore(self) -> None:
        """Put both back; raises PermissionError when both have been tried."""
        try:
            self.nice.restore()
        finally:
            self.affinity.restore()
