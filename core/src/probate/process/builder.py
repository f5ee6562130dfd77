"""The options of a process manager, checked before there is one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Self, TypeVar, final

from probate.orchestrator import (
    DEFAULT_DEADLINE,
    DEFAULT_GRACE,
    ResourceOrchestrator,
    registry_of,
)
from probate.process.scheduling import MAX_QUANTUM, MIN_QUANTUM, Scheduling, SchedulingPolicy
from probate.system.arguments import checked_seconds
from probate.system.ownsignals import DEFAULT_SIGNALS, check_installable, checked_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.journal.owners import OwnersJournal
    from probate.models import ResourceLimits
    from probate.process.process import Process
    from probate.settings import Settings

M = TypeVar("M")

#: What a variable says that is on or off.
_SWITCH: Final = dict.fromkeys(("on", "1", "true", "yes"), True) | dict.fromkeys(
    ("off", "0", "false", "no"), False
)


@final
class JournalOptions(NamedTuple):
    """Says where the journal is kept, and whether a reaper settles at once if the host dies."""

    path: str | None = None
    has_reaper: bool = True

    def open(self, find: Callable[[int], Process | None]) -> OwnersJournal:
        """Return the part of this OS process's journal that is for one manager's processes.

        `find` is that manager's, and finds them.
        """
        from probate.journal.host import journal_of_host
        from probate.journal.owners import OwnersJournal

        return OwnersJournal(journal_of_host(self.path, has_reaper=self.has_reaper), find)


def _journal_by_default() -> JournalOptions | None:
    """Return what the variable PROBATE_JOURNAL says. Raises ValueError for what is neither."""
    said = os.environ.get("PROBATE_JOURNAL") or "on"
    if said.lower() not in _SWITCH:
        raise ValueError(f"PROBATE_JOURNAL must be on or off, got {said!r}")
    # What it is made of is Linux's.
    is_on = _SWITCH[said.lower()] and sys.platform == "linux"
    return JournalOptions() if is_on else None


@final
@dataclass(slots=True)
class ManagerOptions:
    """Holds what a manager is made with, besides its orchestrator."""

    #: Seconds that users of resources get to stop.
    grace: float = DEFAULT_GRACE
    #: Seconds after which a hook that hangs is left, and nothing retried; None for never.
    deadline: float | None = DEFAULT_DEADLINE
    #: What every process may own, unless it is created with limits of its own.
    limits: ResourceLimits | None = None
    #: Whether the stack of every acquisition is kept.
    record_sites: bool = False
    #: How spawned processes share processor time; None leaves that to the kernel.
    scheduling: Scheduling | None = None
    #: Whether `probate ps` is answered even while no OS process is supervised.
    has_status: bool = False
    #: At which signals to the host the manager is closed.
    signals: tuple[int, ...] = ()
    #: Seconds after which all is ended unless the manager is told to go on; None for never.
    lease: float | None = None
    #: Whether things that outlive this OS process are noted, where, and whether a reaper watches.
    journal: JournalOptions | None = field(default_factory=_journal_by_default)


@final
class ProcessManagerBuilder(Generic[M]):
    """Collects options; every `with_...` returns self, and `build` makes the manager."""

    def __init__(self, make: Callable[[ResourceOrchestrator, ManagerOptions], M]) -> None:
        self._make = make
        self._options = ManagerOptions()
        self._orchestrator: ResourceOrchestrator | None = None
        self._settings: Settings | None = None

    def with_resource_orchestrator(self, orchestrator: ResourceOrchestrator) -> Self:
        """Release resources through this orchestrator.

        Use it to choose the kinds; without it, `build` makes one that discovers all that are
        installed. Raises TypeError.
        """
        if not isinstance(orchestrator, ResourceOrchestrator):
            raise TypeError(f"expected a ResourceOrchestrator, got {orchestrator!r}")
        self._orchestrator = orchestrator
        return self

    def with_grace(self, seconds: float) -> Self:
        """Give users of resources so many seconds to stop; 0 for none. Raises ValueError."""
        self._options.grace = checked_seconds("grace", seconds)
        return self

    def with_deadline(self, seconds: float | None) -> Self:
        """Leave a hook that hangs, and retry nothing, after so many seconds; None for never.

        Raises ValueError.
        """
        self._options.deadline = None if seconds is None else checked_seconds("deadline", seconds)
        return self

    def with_limits(self, limits: ResourceLimits) -> Self:
        """Hold every process to these limits, unless it is created with its own.

        Raises TypeError.
        """
        from probate.models import ResourceLimits

        if not isinstance(limits, ResourceLimits):
            raise TypeError(f"expected ResourceLimits, got {limits!r}")
        self._options.limits = limits
        return self

    def with_scheduler(self, policy: SchedulingPolicy, *, quantum: float = 0.05) -> Self:
        """Share processor time out among spawned processes, in slices of `quantum` seconds.

        Needs the kind `scheduler`. Raises ValueError for an unknown policy, or a quantum that is
        not 1 ms to 1 s.
        """
        if not MIN_QUANTUM <= checked_seconds("quantum", quantum) <= MAX_QUANTUM:
            raise ValueError(
                f"quantum must be {MIN_QUANTUM} to {MAX_QUANTUM} seconds, got {quantum!r}"
            )
        self._options.scheduling = Scheduling(SchedulingPolicy(policy), quantum)
        return self

    def with_settings(self, settings: Settings) -> Self:
        """Take grace, deadline, limits and whether there are a journal and a trace from outside.

        And the kinds, if none are given here. What other methods set after this one takes
        precedence. Raises TypeError for what are no settings.
        """
        from probate.settings import Settings

        if not isinstance(settings, Settings):
            raise TypeError(f"expected Settings, got {settings!r}")
        options = self._options
        if not settings.journal:
            options.journal = None
        options.grace, options.deadline = settings.grace, settings.deadline
        options.limits = settings.limits
        self._settings = settings
        return self

    def with_status(self) -> Self:
        """Answer `probate ps` from the start, not only while there are spawned processes.

        Costs a listening socket in the abstract namespace, and the thread that watches it.
        """
        self._options.has_status = True
        return self

    def with_journal(
        self, path: str | os.PathLike[str] | None = None, *, reaper: bool = True
    ) -> Self:
        """Say where the journal is kept, or that no reaper is wanted; there is one by default.

        What a kind makes by a name (see docs/guarantees.md, "When a host dies") is noted before it
        is made, in a folder of this user's: `path`, else $PROBATE_STATE, the user's folder below
        /run/user, ~/.local/state/probate, or /tmp/probate-UID. A small OS process, the reaper, is
        started with the first such thing, and gives all of them back when this process has died,
        whatever it died of. Without `reaper`, or when that is dead as well, `probate sweep` does.
        Overrides the variable PROBATE_JOURNAL. Raises TypeError for a path that is none.
        """
        self._options.journal = JournalOptions(
            None if path is None else os.path.abspath(os.fspath(path)),  # noqa: PTH100  may not exist
            reaper,
        )
        return self

    def without_journal(self) -> Self:
        """Note nothing: what outlives this OS process by its name stays, should it be killed."""
        self._options.journal = None
        return self

    def with_lease(self, seconds: float) -> Self:
        """Close the manager unless its `renew()` is called at least every so many seconds.

        For a host that may go on only as long as somebody else agrees, such as the holder of a
        lock that expires: whoever takes over finds that nothing runs on here. Raises ValueError
        for what is not a number above 0.
        """
        if not checked_seconds("lease", seconds):
            raise ValueError("a lease of 0 seconds is over before it begins")
        self._options.lease = seconds
        return self

    def with_signals(self, *signals: int) -> Self:
        """Close the manager at these signals, then end as the host would have without it.

        By default at SIGTERM, SIGHUP and SIGINT, for a host that is to end in order. When all is
        terminated, the signal gets to the disposition of before: the default action ends the host
        by that signal, a Python function is called in the main thread (at Ctrl-C, the one that
        raises KeyboardInterrupt). What is ignored stays ignored, as nohup(1) wants it. Meanwhile
        the main thread goes on, and with it an event loop that tasks need to be cancelled on; what
        any thread has begun to acquire is taken back, within five seconds. A second signal ends
        the grace. Closing the manager gives the signals back, where nobody else has taken them; on
        another thread than the main one, they are passed on instead.

        Raises TypeError or ValueError for what is no signal that can be handled, or ends nobody.
        """
        self._options.signals = checked_signals(signals or DEFAULT_SIGNALS)
        return self

    def with_acquisition_sites(self) -> Self:
        """Keep the stack of every acquisition, for the leak report. Slows acquisitions down."""
        self._options.record_sites = True
        return self

    def build(self) -> M:
        """Make the manager.

        Raises RuntimeError if the orchestrator serves another one, or if signals are to be handled
        and this is not the main thread, or C code handles one of them; UnknownKindError if a
        scheduler is asked for and not installed, or for limits of a kind that there is not.
        """
        check_installable(self._options.signals)
        orchestrator = self._orchestrator
        if orchestrator is None:
            orchestrator = ResourceOrchestrator()
            if self._settings is None:
                orchestrator.discover()
            else:
                # Here, since it knows where each setting is from.
                self._settings.check_installed()
                disable, priorities = self._settings.disable, self._settings.priorities
                orchestrator.discover(disable=disable, priorities=priorities)
        if self._settings is not None and self._settings.trace:
            registry_of(orchestrator).plugin_manager.trace_calls(self._settings.trace)
        return self._make(orchestrator, self._options)
