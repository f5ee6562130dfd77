"""What is kept of the dead: the accounts of the latest, and the sum of all."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, final

from probate.models import NOTHING, CleanupResult, CleanupStats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probate.orchestrator import ResourceOrchestrator
    from probate.process.process import Pid, Process

logger = logging.getLogger("probate")

#: How many of the dead can still be asked for by pid although nobody holds their `Process`.
_REMEMBERED: Final = 4096


@final
class Sum:
    """Accounts added up, without a model for each sum in between."""

    def __init__(self) -> None:
        self._freed = self._nbytes = self._errors = 0
        self._seconds = 0.0
        self._by_type: dict[str, int] = {}

    def add(self, stats: CleanupStats) -> None:
        """Add one account."""
        self._seconds += stats.duration_seconds
        if stats.resources_freed:
            self._freed += stats.resources_freed
            self._nbytes += stats.bytes_freed
            for kind, freed in stats.by_type.items():
                self._by_type[kind] = self._by_type.get(kind, 0) + freed
        self._errors += stats.errors_encountered

    def stats(self) -> CleanupStats:
        """The sum."""
        return CleanupStats(
            resources_freed=self._freed,
            bytes_freed=self._nbytes,
            errors_encountered=self._errors,
            duration_seconds=self._seconds,
            by_type=dict(self._by_type),
        )


@final
class TerminationHistory:
    """The dead of one manager: the latest of them, and the sum of all their accounts."""

    def __init__(self, orchestrator: ResourceOrchestrator) -> None:
        self._orchestrator = orchestrator
        self._lock = threading.RLock()
        self._remembered: OrderedDict[Pid, Process] = OrderedDict()
        self._sum = Sum()

    @property
    def totals(self) -> CleanupStats:
        """The sum of all accounts so far."""
        with self._lock:
            return self._sum.stats()

    def get(self, pid: Pid) -> Process | None:
        """Return a process that ended lately."""
        return self._remembered.get(pid)

    def keep(self, process: Process, result: CleanupResult | None) -> None:
        """Remember one of the dead, before it is gone from among the living; sum its account up."""
        with self._lock:
            self._remembered[process.pid] = process
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
            if result is not None and result.stats is not NOTHING:
                self._sum.add(result.stats)

    def forget(self, process: Process) -> None:
        """Remember it no more, as if it had never been."""
        with self._lock:
            self._remembered.pop(process.pid, None)

    @staticmethod
    def log_failures(process: Process, result: CleanupResult) -> None:
        """Say in the log what did not come free, and what leaked."""
        for failure in result.errors:
            logger.warning("process %d %r: %s", process.pid, process.name, failure)
        for leak in result.leaks:
            logger.warning("process %d %r: leak: %s", process.pid, process.name, leak)

    def retry(self, pids: Iterable[int], deadline: float | None) -> None:
        """Try once more to release what the dead still own; `deadline` in seconds, for each."""
        for pid in pids:
            self._add(self._orchestrator.cleanup_process(pid, grace=0, deadline=deadline))

    async def retry_async(self, pids: Iterable[int], deadline: float | None) -> None:
        """As `retry`, without blocking the event loop."""
        for pid in pids:
            cleanup = self._orchestrator.cleanup_process_async
            self._add(await cleanup(pid, grace=0, deadline=deadline))

    def forget_parent(self) -> None:
        """Start afresh, in a forked child."""
        self._lock = threading.RLock()
        self._remembered = OrderedDict()

    def _add(self, result: CleanupResult) -> None:
        with self._lock:
            self._sum.add(result.stats)
