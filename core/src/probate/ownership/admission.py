"""Which pids may acquire, and under which limits: one `Admission` per orchestrator.

Every ownership table of an orchestrator asks it. It remembers only pids that run or are
terminating, so that nothing grows with those that have ended.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from probate.errors import ProcessNotFoundError, ProcessTerminatedError
from probate.system.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate.journal.owners import OwnersJournal
    from probate.models import ResourceLimits


@final
class UnderWay:
    """Counts a call among those that are under way, for the length of a `with` block.

    Weakly: should an exception of a signal handler keep it from its end, nobody waits for it.
    """

    __slots__ = ("__weakref__", "_calls", "_ref")

    def __init__(self, calls: set[weakref.ref[UnderWay]]) -> None:
        self._calls = calls
        self._ref = weakref.ref(self)

    def __enter__(self) -> None:
        self._calls.add(self._ref)

    def __exit__(self, *_: object) -> None:
        self._calls.discard(self._ref)


@final
class Admission:
    """Decides which pids may acquire, in all ownership tables of one orchestrator.

    Without a process manager any int is a pid, and is refused only while its cleanup runs. Once a
    manager issues pids here, only those that it issued and that still run are admitted.
    """

    __slots__ = (
        "__weakref__",
        "_calls",
        "_is_managed",
        "_issued",
        "_live",
        "_lock",
        "_manager",
        "_refused",
        "journal",
        "record_sites",
        "revocations",
        "unlimited",
    )

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._issued = 0
        # Whether a manager has ever issued pids here, and the one that does.
        self._is_managed = False
        self._manager: weakref.ref[object] | None = None
        self._live: dict[int, ResourceLimits | None] = {}
        self._refused: dict[int, int] = {}
        self._calls: set[weakref.ref[UnderWay]] = set()
        #: Pids issued here for which `check` would return None, so that nobody need call it; empty
        #: where sites are recorded, since each acquisition then takes the longer way.
        self.unlimited: set[int] = set()
        #: Changes whenever `check` has begun to refuse a pid: if it is the same before and after a
        #: resource was put in, nobody was refused meanwhile, and `check` need not be called again.
        self.revocations = 0
        #: Whether tables keep the stack of each acquisition, for the leak report.
        self.record_sites = False
        #: Where things are noted that outlive this OS process by their names; None for nowhere.
        self.journal: OwnersJournal | None = None
        forget_in_forked_child(self)

    def check(self, pid: int) -> ResourceLimits | None:
        """Return the limits of `pid`, None if it has none.

        Raises ProcessTerminatedError or ProcessNotFoundError if it may not acquire.
        """
        # These first: a pid is live and refused while only what it owns is cleaned up.
        if pid in self._refused:
            raise ProcessTerminatedError(pid)
        if not self._is_managed:
            return None
        try:
            return self._live[pid]
        except KeyError:
            if 0 < pid <= self._issued:
                raise ProcessTerminatedError(pid) from None
            raise ProcessNotFoundError(pid) from None

    def under_way(self) -> UnderWay:
        """Mark a call that makes or releases what no table has meanwhile, by a `with` block.

        It begins before it is asked whether the pid is admitted: whoever refuses all, and then
        looks for calls, finds those that were quicker.
        """
        return UnderWay(self._calls)

    def has_calls(self) -> bool:
        """Tell whether any thread is in such a call: what it has in hand would outlive the host."""
        # A copy, since others come and go meanwhile.
        return bool(self._refused) or any(call() is not None for call in self._calls.copy())

    def claim(self, manager: object, *, after: int, record_sites: bool) -> None:
        """Let `manager` alone issue pids from here on, all of them greater than `after`.

        Raises RuntimeError while another manager does.
        """
        with self._lock:
            if self._manager is not None and self._manager() is not None:
                raise RuntimeError(
                    "this orchestrator serves another process manager: close that one first, "
                    "or give each its own"
                )
            self._is_managed = True
            self._manager = weakref.ref(manager)
            self._issued = max(self._issued, after)
            self._live = {}
            self.unlimited = set()
            self.revocations += 1
            self.record_sites = record_sites

    def disclaim(self, manager: object) -> None:
        """Let another manager follow `manager`; its pids go on from where this one stopped."""
        with self._lock:
            if self._manager is not None and self._manager() is manager:
                self._manager = None
                journal, self.journal = self.journal, None
                if journal is not None:
                    journal.close()

    def issue(self, limits: ResourceLimits | None) -> int:
        """Issue a pid that was never issued here before, and admit it under these limits."""
        with self._lock:
            pid = self._issued + 1
            # Before `_issued` covers it, or it would look terminated for a moment.
            self._live[pid] = limits
            self._issued = pid
            if limits is None and not self.record_sites:
                self.unlimited.add(pid)
        return pid

    def revoke(self, pid: int) -> None:
        """Refuse `pid` for ever. Atomic: once this has returned, each `check` refuses it."""
        # By `with`: an exception from outside may fall in between a bare acquire() and its `try`.
        with self._lock:
            self._live.pop(pid, None)
            self.unlimited.discard(pid)
            self.revocations += 1

    @contextmanager
    def refuse_while(self, pid: int) -> Iterator[None]:
        """Refuse `pid` for the duration. Nests, also from several threads."""
        with self._lock:
            self._refused[pid] = self._refused.get(pid, 0) + 1
            self.unlimited.discard(pid)
            self.revocations += 1
        try:
            yield
        finally:
            with self._lock:
                left = self._refused[pid] - 1
                if left:
                    self._refused[pid] = left
                else:
                    del self._refused[pid]
                    if self._live.get(pid, self) is None and not self.record_sites:
                        self.unlimited.add(pid)

    def forget_parent(self) -> None:
        """Forget all pids, in a forked child: none of the parent's runs there."""
        self._lock = threading.RLock()
        self._live = {}
        self._refused = {}
        self._calls = set()
        self.unlimited = set()
