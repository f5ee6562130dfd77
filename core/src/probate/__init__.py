"""Probate settles the estate of dead processes.

    hookspecs.py      the contract with plugins: read this first
    models.py         accounts, records, limits (pydantic)
    outcome.py        what can become of one resource
    ordering.py       where a kind stands in the cleanup order
    errors.py         the exception tree
    interruption.py   Ctrl-C past a finished cleanup
    wording.py        errors and resources in words
    ownership.py      OwnershipTable: who owns what
    estate.py         the thread-safe books behind it
    emptying.py       the emptying of one estate, and its account
    admission.py      which pids may acquire, and how much
    forking.py        a forked child owns nothing
    lazily.py         modules imported when first used
    kernel.py         what the kernel says this OS process holds
    discovery.py      entry points to plugins and their fates
    requirement.py    which core a plugin asks for
    fate.py           what became of an entry point
    hookmanager.py    pluggy's manager, with our hooks
    contract.py       whether a plugin keeps the contract
    wiring.py         finds a plugin's tables
    kind.py           one registered plugin, and its hooks
    registry.py       registered plugins, validated and sorted
    orchestrator.py   a mapping of kind to plugin; cleans one pid over all kinds
    termination.py    one termination: quiesce, cleanup, retry, verify, account
    waiting.py        waiting on threads and on event loops
    watch.py          calls that may hang
    settings.py       settings from outside (extra: settings)
    version.py        the version
    process/          processes, their tree, their manager
    cli/              the `probate` command (extra: cli)

Importing this package imports pluggy and little else; each public name is loaded when it is
first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from probate.forking import forget_in_forked_child
from probate.hookspecs import hookimpl, runs_inline
from probate.version import __version__

if TYPE_CHECKING:
    from probate.errors import (
        AlreadyOwnedError,
        BusyResourceError,
        DuplicateKindError,
        HookOrderError,
        InvalidOrderingError,
        MissingHookError,
        NoCurrentProcessError,
        NotOwnedError,
        OrderingCycleError,
        OwnershipError,
        PidfdUnavailableError,
        PluginError,
        ProbateError,
        ProcessError,
        ProcessNotFoundError,
        ProcessTerminatedError,
        RefusedResourceError,
        ReleaseError,
        ReleaseTimeoutError,
        ResourceLimitExceeded,
        TerminationDeadlockError,
        UnadoptableError,
        UnknownHookError,
        UnknownKindError,
        UnusablePluginError,
    )
    from probate.interruption import InterruptedCleanup
    from probate.models import (
        CleanupFailure,
        CleanupResult,
        CleanupStats,
        KindLimits,
        Leak,
        OsUsage,
        PluginRecord,
        PluginStatus,
        ProcessInfo,
        ProcessState,
        ResourceInfo,
        ResourceLimits,
        ResourceRecord,
        ResourceUsage,
    )
    from probate.orchestrator import MissingKindWarning, ResourceOrchestrator
    from probate.ordering import Ordering
    from probate.outcome import Outcome
    from probate.ownership import OwnershipTable, ResourceId
    from probate.process.builder import ProcessManagerBuilder
    from probate.process.current import current_process, pid_or_current
    from probate.process.deathwatch import DeathWatch, death_watch
    from probate.process.manager import ProcessManager
    from probate.process.osprocess import OsProcess
    from probate.process.process import Pid, Process
    from probate.process.scheduling import SchedulingPolicy

__all__ = [
    "AlreadyOwnedError",
    "BusyResourceError",
    "CleanupFailure",
    "CleanupResult",
    "CleanupStats",
    "DeathWatch",
    "DuplicateKindError",
    "HookOrderError",
    "InterruptedCleanup",
    "InvalidOrderingError",
    "KindLimits",
    "Leak",
    "MissingHookError",
    "MissingKindWarning",
    "NoCurrentProcessError",
    "NotOwnedError",
    "Ordering",
    "OrderingCycleError",
    "OsProcess",
    "OsUsage",
    "Outcome",
    "OwnershipError",
    "OwnershipTable",
    "Pid",
    "PidfdUnavailableError",
    "PluginError",
    "PluginRecord",
    "PluginStatus",
    "ProbateError",
    "Process",
    "ProcessError",
    "ProcessInfo",
    "ProcessManager",
    "ProcessManagerBuilder",
    "ProcessNotFoundError",
    "ProcessState",
    "ProcessTerminatedError",
    "RefusedResourceError",
    "ReleaseError",
    "ReleaseTimeoutError",
    "ResourceId",
    "ResourceInfo",
    "ResourceLimitExceeded",
    "ResourceLimits",
    "ResourceOrchestrator",
    "ResourceRecord",
    "ResourceUsage",
    "SchedulingPolicy",
    "TerminationDeadlockError",
    "UnadoptableError",
    "UnknownHookError",
    "UnknownKindError",
    "UnusablePluginError",
    "__version__",
    "current_process",
    "death_watch",
    "forget_in_forked_child",
    "hookimpl",
    "pid_or_current",
    "runs_inline",
]

#: Where each lazily loaded name lives; the TYPE_CHECKING block above says the same to checkers.
_HOMES: Final = {
    "probate.errors": (
        "AlreadyOwnedError BusyResourceError DuplicateKindError HookOrderError "
        "InvalidOrderingError MissingHookError NoCurrentProcessError NotOwnedError "
        "OrderingCycleError OwnershipError PidfdUnavailableError PluginError ProbateError "
        "ProcessError ProcessNotFoundError ProcessTerminatedError RefusedResourceError "
        "ReleaseError ReleaseTimeoutError ResourceLimitExceeded TerminationDeadlockError "
        "UnadoptableError UnknownHookError UnknownKindError UnusablePluginError"
    ),
    "probate.interruption": "InterruptedCleanup",
    "probate.models": (
        "CleanupFailure CleanupResult CleanupStats KindLimits Leak OsUsage PluginRecord "
        "PluginStatus ProcessInfo ProcessState ResourceInfo ResourceLimits ResourceRecord "
        "ResourceUsage"
    ),
    "probate.orchestrator": "MissingKindWarning ResourceOrchestrator",
    "probate.ordering": "Ordering",
    "probate.outcome": "Outcome",
    "probate.ownership": "OwnershipTable ResourceId",
    "probate.process.builder": "ProcessManagerBuilder",
    "probate.process.current": "current_process pid_or_current",
    "probate.process.deathwatch": "DeathWatch death_watch",
    "probate.process.manager": "ProcessManager",
    "probate.process.osprocess": "OsProcess",
    "probate.process.process": "Pid Process",
    "probate.process.scheduling": "SchedulingPolicy",
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
