"""What is kept of the dead: the accounts of the latest, the sum of all, and who left a residue."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, final

from probate.models import NOTHING, CleanupResult, CleanupStats

if TYPE_CHECKING:
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
    """The dead of one manager. Bounded, but for those that still own something busy."""

    def __init__(self, orchestrator: ResourceOrchestrator) -> None:
        self._orchestrator = orchestrator
        self._lock = threading.RLock()
        self._remembered: OrderedDict[Pid, Process] = OrderedDict()
        #: Those that are remembered no more, and that somebody still holds.
        self._held: weakref.WeakValueDictionary[Pid, Process] = weakref.WeakValueDictionary()
        self._still_owning: deque[Pid] = deque()
        self._sum = Sum()

    @property
    def totals(self) -> CleanupStats:
        """The sum of all accounts so far."""
        with self._lock:
            return self._sum.stats()

    def get(self, pid: Pid) -> Process | None:
        """A process that ended lately, or that somebody still holds."""
        return self._remembered.get(pid) or self._held.get(pid)

    def keep(self, process: Process, result: CleanupResult | None) -> None:
        """Remember one of the dead, before it is gone from among the living; sum its account up."""
        with self._lock:
            self._remembered[process.pid] = process
            if len(self._remembered) > _REMEMBERED:
                self._let_go()
            if result is not None and result.stats is not NOTHING:
                self._sum.add(result.stats)

    def _let_go(self) -> None:
        """Remember the oldest no more; it can still be asked for while anybody holds it."""
        pid, oldest = self._remembered.popitem(last=False)
        reference = weakref.ref(oldest)
        del oldest
        if (survivor := reference()) is not None:
            self._held[pid] = survivor

    def forget(self, process: Process) -> None:
        """Remember it no more, as if it had never been."""
        with self._lock:
            self._remembered.pop(process.pid, None)
            self._held.pop(process.pid, None)

    def log_failures(self, process: Process, result: CleanupResult) -> None:
        """Say in the log what did not come free, and keep in mind who still owns something."""
        if any(failure.outcome.stays_owned for failure in result.errors):
            with self._lock:
                self._still_owning.append(process.pid)
            self._prune()
        for failure in result.errors:
            logger.warning("process %d %r: %s", process.pid, process.name, failure)
        for leak in result.leaks:
            logger.warning("process %d %r: leak: %s", process.pid, process.name, leak)

    def still_owning(self) -> list[Pid]:
        """The dead that still own something that was busy."""
        with self._lock:
            return list(self._still_owning)

    def retry(self, deadline: float | None) -> None:
        """Try once more to release what the dead still own; `deadline` in seconds, for each."""
        for pid in self.still_owning():
            result = self._orchestrator.cleanup_process(pid, grace=0, deadline=deadline)
            self._note_retry(pid, result)

    async def retry_async(self, deadline: float | None) -> None:
        """As `retry`, without blocking the event loop."""
        for pid in self.still_owning():
            result = await self._orchestrator.cleanup_process_async(pid, grace=0, deadline=deadline)
            self._note_retry(pid, result)

    def forget_parent(self) -> None:
        """Start afresh, in a forked child."""
        self._lock = threading.RLock()
        self._remembered = OrderedDict()
        self._held = weakref.WeakValueDictionary()
        self._still_owning = deque()

    def _note_retry(self, pid: Pid, result: CleanupResult) -> None:
        """Add what one more try has freed of a residue."""
        with self._lock:
            self._sum.add(result.stats)
        if not self._orchestrator.has_resources(pid):
            with self._lock, contextlib.suppress(ValueError):
                self._still_owning.remove(pid)

    def _prune(self) -> None:
        """Forget those whose things have come free since: two looks for each that comes in."""
        for _ in range(2):
            with self._lock:
                if not self._still_owning:
                    return
                pid = self._still_owning.popleft()
            if self._orchestrator.has_resources(pid):
                with self._lock:
                    self._still_owning.append(pid)
