"""What a manager keeps of terminated processes: the latest of them, and the sum of all accounts."""

from __future__ import annotations

import contextlib
import signal
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, final

from probate.models import NOTHING, CleanupStats
from probate.system.log import logger

if TYPE_CHECKING:
    from probate.models import CleanupResult
    from probate.process.process import Process

#: How many terminated processes can be asked for by pid although nobody holds their `Process`.
_REMEMBERED: Final = 4096


@final
class TerminationHistory:
    """Remembers the latest terminated processes, and adds all accounts up.

    Its manager calls it under a lock. The sum is kept in plain numbers: a model for every sum in
    between would cost more than the rest of a termination.
    """

    def __init__(self) -> None:
        self._remembered: OrderedDict[int, Process] = OrderedDict()
        self._by_type: dict[str, int] = {}
        self.clear()

    def clear(self) -> None:
        """Forget all processes and accounts."""
        self._remembered.clear()
        self._freed = self._nbytes = self._errors = 0
        self._seconds = 0.0
        self._by_type.clear()

    def get(self, pid: int) -> Process | None:
        """Find a process that terminated lately."""
        return self._remembered.get(pid)

    def keep(self, process: Process) -> None:
        """Remember a terminated process, and forget the oldest if there are too many."""
        self._remembered[process.pid] = process
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    def forget(self, process: Process) -> None:
        """Forget a process, as if it had never been."""
        self._remembered.pop(process.pid, None)

    def add(self, stats: CleanupStats) -> None:
        """Add one account to the sum."""
        if stats is NOTHING:
            return
        self._freed += stats.resources_freed
        self._nbytes += stats.bytes_freed
        self._errors += stats.errors_encountered
        self._seconds += stats.duration_seconds
        for kind, freed in stats.by_type.items():
            self._by_type[kind] = self._by_type.get(kind, 0) + freed

    def totals(self) -> CleanupStats:
        """Return the sum of all accounts."""
        return CleanupStats(
            resources_freed=self._freed,
            bytes_freed=self._nbytes,
            errors_encountered=self._errors,
            duration_seconds=self._seconds,
            by_type=dict(self._by_type),
        )


def log_exit(process: Process, result: CleanupResult) -> None:
    """Log that an OS process of ours has ended: whose, how, and the account."""
    status = process.returncode
    how = "unknown" if status is None else str(status)
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            how += f" ({signal.Signals(-status).name})"
    told = "process %d %r: OS process %s has ended, exit status %s: %s"
    logger.info(told, process.pid, process.name, process.os_pid, how, result)


def log_failures(process: Process, result: CleanupResult) -> None:
    """Log a warning for each resource that was not released, each leak, and each note."""
    for failure in result.errors:
        logger.warning("process %d %r: %s", process.pid, process.name, failure)
    for leak in result.leaks:
        logger.warning("process %d %r: leak: %s", process.pid, process.name, leak)
    for note in result.notes:
        logger.warning("process %d %r: note: %s", process.pid, process.name, note)
