"""Which pids may acquire, and under which limits: one `Admission` per orchestrator.

Every ownership table of an orchestrator asks it. It holds the living and the dying only, so
that nothing grows with the dead.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, final

from probate.errors import ProcessNotFoundError, ProcessTerminatedError
from probate.system.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate.models import ResourceLimits


class _Nobody:
    """Whoever a dead reference refers to."""


#: A dead reference: there was a manager, and there is none now.
_no_manager: Final[weakref.ref[object]] = weakref.ref(_Nobody())


@final
class Admission:
    """The gate in front of all ownership tables of one orchestrator.

    Unmanaged, any int is a pid and is refused only while its cleanup runs. Once a process
    manager issues pids here, only those that it issued and that still run are let in.
    """

    __slots__ = (
        "__weakref__",
        "_issued",
        "_live",
        "_lock",
        "_manager",
        "_refused",
        "record_sites",
        "revocations",
        "unlimited",
    )  # fmt: skip

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._issued = 0
        #: The manager that issues pids here: None before the first, dead after the last.
        self._manager: weakref.ref[object] | None = None
        self._live: dict[int, ResourceLimits | None] = {}
        self._refused: dict[int, int] = {}
        #: Those for whom `check` would return None, as far as they were issued by a manager; none
        #: where sites are recorded, so that of each acquisition more is done than of theirs.
        self.unlimited: set[int] = set()
        #: Another number each time that a pid has been shut out, and is seen to be so by `check`:
        #: who is let in, and then sees the same number, is in before anybody was shut out.
        self.revocations = 0
        #: Whether tables keep the stack of each acquisition, for the leak report.
        self.record_sites = False
        forget_in_forked_child(self)

    def check(self, pid: int) -> ResourceLimits | None:
        """Return the limits of `pid`, None if it has none.

        Raises ProcessTerminatedError or ProcessNotFoundError if it may not acquire.
        """
        # The dying first: a pid is both live and ending while its holdings alone are cleaned.
        if pid in self._refused:
            raise ProcessTerminatedError(pid)
        if self._manager is None:
            return None
        try:
            return self._live[pid]
        except KeyError:
            if 0 < pid <= self._issued:
                raise ProcessTerminatedError(pid) from None
            raise ProcessNotFoundError(pid) from None

    def claim(self, manager: object, *, after: int, record_sites: bool) -> None:
        """Have `manager` alone issue pids from here on, all of them greater than `after`.

        Raises RuntimeError while another manager does.
        """
        with self._lock:
            if self._manager is not None and self._manager() is not None:
                raise RuntimeError(
                    "this orchestrator serves another process manager: close that one first, "
                    "or give each its own"
                )
            self._manager = weakref.ref(manager)
            self._issued = max(self._issued, after)
            self._live = {}
            self.unlimited = set()
            self.revocations += 1
            self.record_sites = record_sites

    def disclaim(self, manager: object) -> None:
        """Let another manager follow `manager`; pids go on from where it stopped."""
        with self._lock:
            if self._manager is not None and self._manager() is manager:
                self._manager = _no_manager

    def issue(self, limits: ResourceLimits | None) -> int:
        """Issue a pid that was never issued here before, and let it in."""
        with self._lock:
            pid = self._issued + 1
            # The pid must be live before `_issued` covers it, or it would look dead for a moment.
            self._live[pid] = limits
            self._issued = pid
            if limits is None and not self.record_sites:
                self.unlimited.add(pid)
        return pid

    def revoke(self, pid: int) -> None:
        """Let `pid` in no more, ever. Atomic: from the return on, each `check` refuses."""
        # Not by `with`, which takes more time than all the rest.
        self._lock.acquire()
        try:
            self._live.pop(pid, None)
            self.unlimited.discard(pid)
            self.revocations += 1
        finally:
            self._lock.release()

    @contextmanager
    def refuse_while(self, pid: int) -> Iterator[None]:
        """Refuse `pid` for the duration; nests, also from several threads."""
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
        """Start afresh in a forked child, where no pid of the parent is alive."""
        self._lock = threading.RLock()
        self._live = {}
        self._refused = {}
        self.unlimited = set()
