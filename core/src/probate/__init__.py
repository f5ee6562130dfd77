"""Probate settles the estate of dead processes.

    hookspecs.py      the contract with plugins: read this first
    models.py         accounts, records, limits (pydantic)
    errors.py         the exception tree
    outcome.py        what can become of one resource
    ordering.py       where a kind stands in the cleanup order
    orchestrator.py   a mapping of kind to plugin; cleans one pid over all kinds
    settings.py       settings from outside (extra: settings)
    interruption.py   Ctrl-C past a finished cleanup
    wording.py        errors and resources in words
    version.py        the version
    ownership/        who owns what
    plugins/          from entry points to a sorted registry
    termination/      one end: its steps, and waiting
    process/          processes, their tree, their manager
    system/           what the kernel and the interpreter offer
    cli/              the `probate` command (extra: cli)
    testing/          what the kernel says, for tests

Importing this package imports pluggy and little else; each public name is loaded when it is
first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from probate.hookspecs import hookimpl, runs_inline
from probate.system.forking import forget_in_forked_child
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
    from probate.ownership.table import OwnershipTable, ResourceId
    from probate.process.builder import ProcessManagerBuilder
    from probate.process.current import current_process, pid_or_current
    from probate.process.manager import ProcessManager
    from probate.process.process import Pid, Process
    from probate.process.scheduling import SchedulingPolicy
    from probate.system.deathwatch import DeathWatch, death_watch
    from probate.system.osprocess import OsProcess

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
    "probate.ownership.table": "OwnershipTable ResourceId",
    "probate.process.builder": "ProcessManagerBuilder",
    "probate.process.current": "current_process pid_or_current",
    "probate.system.deathwatch": "DeathWatch death_watch",
    "probate.process.manager": "ProcessManager",
    "probate.system.osprocess": "OsProcess",
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
