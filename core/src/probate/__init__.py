"""Probate gives back what processes own when they end, whatever kind of resource it is.

    hookspecs.py      the contract with plugins: read this first
    models.py         what goes in and comes out: accounts, records, limits (pydantic)
    errors.py         every exception, in one tree
    outcome.py        what can become of a resource and of a plugin; ids
    ordering.py       Ordering: where a kind stands in the cleanup order
    orchestrator.py   a mapping of kind to plugin; ends one pid over all kinds
    settings.py       settings from outside (extra: settings)
    version.py        the version
    __main__.py       `python -m probate`
    ownership/        who owns what: the table, the holdings behind it, releasing, admission
    plugins/          from entry points to a sorted registry; ResourceKind
    termination/      one end: its steps, and waiting
    journal/          what this host has made by name, noted so that it outlives the host
    settlement/       settles the estates of hosts that have died
    process/          owners, their tree, their manager
    run/              runs any command, and settles what its tree leaves
    system/           what the kernel and the interpreter offer
    cli/              the `probate` command (extra: cli)
    testing/          what the kernel says, for tests

Public are the names that this package, `probate.hookspecs`, `.models`, `.errors`, `.settings`,
`.journal`, `.ownership`, `.process`, `.settlement`, `.system` and `.testing` list; all other
modules are private. Importing this package imports little: each name is loaded when it is first
used (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from probate.system.lazy import by_name, lazy_names

if TYPE_CHECKING:
    from probate.errors import AlreadyOwnedError as AlreadyOwnedError
    from probate.errors import BusyResourceError as BusyResourceError
    from probate.errors import DuplicateKindError as DuplicateKindError
    from probate.errors import HookOrderError as HookOrderError
    from probate.errors import InterruptedCleanup as InterruptedCleanup
    from probate.errors import InvalidOrderingError as InvalidOrderingError
    from probate.errors import JournalNotArmedError as JournalNotArmedError
    from probate.errors import MissingHookError as MissingHookError
    from probate.errors import NoCurrentProcessError as NoCurrentProcessError
    from probate.errors import NotOwnedError as NotOwnedError
    from probate.errors import OrderingCycleError as OrderingCycleError
    from probate.errors import OwnershipError as OwnershipError
    from probate.errors import PidfdUnavailableError as PidfdUnavailableError
    from probate.errors import PluginError as PluginError
    from probate.errors import ProbateError as ProbateError
    from probate.errors import ProcessError as ProcessError
    from probate.errors import ProcessNotFoundError as ProcessNotFoundError
    from probate.errors import ProcessTerminatedError as ProcessTerminatedError
    from probate.errors import RefusedResourceError as RefusedResourceError
    from probate.errors import ReleaseError as ReleaseError
    from probate.errors import ReleaseTimeoutError as ReleaseTimeoutError
    from probate.errors import ResourceLimitExceeded as ResourceLimitExceeded
    from probate.errors import TerminationDeadlockError as TerminationDeadlockError
    from probate.errors import UnadoptableError as UnadoptableError
    from probate.errors import UnknownHookError as UnknownHookError
    from probate.errors import UnknownKindError as UnknownKindError
    from probate.errors import UnsettledResourceError as UnsettledResourceError
    from probate.errors import UnusablePluginError as UnusablePluginError
    from probate.hookspecs import hookimpl as hookimpl
    from probate.hookspecs import runs_inline as runs_inline
    from probate.models import CleanupFailure as CleanupFailure
    from probate.models import CleanupResult as CleanupResult
    from probate.models import CleanupStats as CleanupStats
    from probate.models import KindLimits as KindLimits
    from probate.models import Leak as Leak
    from probate.models import OsUsage as OsUsage
    from probate.models import PluginRecord as PluginRecord
    from probate.models import ProcessInfo as ProcessInfo
    from probate.models import ProcessState as ProcessState
    from probate.models import ResourceInfo as ResourceInfo
    from probate.models import ResourceLimits as ResourceLimits
    from probate.models import ResourceRecord as ResourceRecord
    from probate.models import ResourceUsage as ResourceUsage
    from probate.orchestrator import MissingKindWarning as MissingKindWarning
    from probate.orchestrator import ResourceOrchestrator as ResourceOrchestrator
    from probate.ordering import Ordering as Ordering
    from probate.outcome import Outcome as Outcome
    from probate.outcome import PluginStatus as PluginStatus
    from probate.outcome import ResourceId as ResourceId
    from probate.ownership.callback import Callback as Callback
    from probate.ownership.descriptors import has_owner as has_owner
    from probate.ownership.table import OwnershipTable as OwnershipTable
    from probate.plugins.kind import ResourceKind as ResourceKind
    from probate.plugins.wiring import UnwiredKindWarning as UnwiredKindWarning
    from probate.process.builder import ProcessManagerBuilder as ProcessManagerBuilder
    from probate.process.current import current_process as current_process
    from probate.process.leftout import pid_or_current as pid_or_current
    from probate.process.manager import ProcessManager as ProcessManager
    from probate.process.process import Pid as Pid
    from probate.process.process import Process as Process
    from probate.process.scheduling import SchedulingPolicy as SchedulingPolicy
    from probate.run.filter import ObservationUnavailableError as ObservationUnavailableError
    from probate.system.deathwatch import DeathWatch as DeathWatch
    from probate.system.deathwatch import death_watch as death_watch
    from probate.system.forking import forget_in_forked_child as forget_in_forked_child
    from probate.system.osprocess import OsProcess as OsProcess
    from probate.termination.hookcall import add_note as add_note
    from probate.termination.hookcall import current_grace as current_grace
    from probate.version import __version__ as __version__

#: The public names of each module; the block above says the same to checkers.
_HOMES: Final = by_name(
    {
        "probate.errors": """
            AlreadyOwnedError BusyResourceError DuplicateKindError HookOrderError InterruptedCleanup
            InvalidOrderingError JournalNotArmedError MissingHookError NoCurrentProcessError
            NotOwnedError OrderingCycleError OwnershipError PidfdUnavailableError PluginError
            ProbateError ProcessError ProcessNotFoundError ProcessTerminatedError
            RefusedResourceError ReleaseError ReleaseTimeoutError ResourceLimitExceeded
            TerminationDeadlockError UnadoptableError UnknownHookError UnknownKindError
            UnsettledResourceError UnusablePluginError
        """,
        "probate.hookspecs": "hookimpl runs_inline",
        "probate.models": """
            CleanupFailure CleanupResult CleanupStats KindLimits Leak OsUsage PluginRecord
            ProcessInfo ProcessState ResourceInfo ResourceLimits ResourceRecord ResourceUsage
        """,
        "probate.orchestrator": "MissingKindWarning ResourceOrchestrator",
        "probate.ordering": "Ordering",
        "probate.outcome": "Outcome PluginStatus ResourceId",
        "probate.ownership.callback": "Callback",
        "probate.ownership.descriptors": "has_owner",
        "probate.ownership.table": "OwnershipTable",
        "probate.plugins.kind": "ResourceKind",
        "probate.plugins.wiring": "UnwiredKindWarning",
        "probate.process.builder": "ProcessManagerBuilder",
        "probate.process.current": "current_process",
        "probate.process.leftout": "pid_or_current",
        "probate.process.manager": "ProcessManager",
        "probate.process.process": "Pid Process",
        "probate.process.scheduling": "SchedulingPolicy",
        "probate.run.filter": "ObservationUnavailableError",
        "probate.system.deathwatch": "DeathWatch death_watch",
        "probate.system.forking": "forget_in_forked_child",
        "probate.system.osprocess": "OsProcess",
        "probate.termination.hookcall": "add_note current_grace",
        "probate.version": "__version__",
    }
)
__all__ = list(_HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:
    # Unseen by checkers, to whom a misspelt name is an error.
    __getattr__ = lazy_names(__name__, {**_HOMES, "settings": "probate.settings"})
