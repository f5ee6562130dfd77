"""Keeps the registered plugins in cleanup order, and calls them one by one through pluggy."""

from __future__ import annotations

import os
import threading
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import pluggy

from probate.errors import (
    DuplicateKindError,
    MissingHookError,
    PluginError,
    UnknownKindError,
    UnusablePluginError,
)
from probate.hookspecs import REQUIRED_HOOKS
from probate.outcome import PluginStatus
from probate.plugins.contract import check_usable, hooks_of, ordering_of, take_a_pid_only
from probate.plugins.hookmanager import HookManager
from probate.plugins.order import cleanup_order
from probate.plugins.registered import RegisteredKind
from probate.plugins.wiring import UnwiredKindWarning, find_tables
from probate.system.forking import forget_in_forked_child
from probate.system.interrupts import fell_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from probate.hookspecs import AnyFuture
    from probate.models import CleanupStats, ResourceLimits
    from probate.ownership.admission import Admission
    from probate.ownership.table import OwnershipTable
    from probate.plugins.discovered import DiscoveredPlugin


@final
class KindsInUse(NamedTuple):
    """Says of which kinds one pid owns something."""

    #: In cleanup order. A kind that could not be asked is one of them: its cleanup finds out.
    kinds: list[RegisteredKind]
    #: Kinds that could not be asked, and what they raised.
    failures: list[tuple[RegisteredKind, BaseException]]
    #: An exception that fell in from outside meanwhile.
    interrupt: BaseException | None
    #: All kinds that were asked.
    order: Sequence[RegisteredKind]


#: The answer if nothing is owned, and all kinds could be asked.
NO_KINDS: Final = KindsInUse([], [], None, ())

_UNWIRED: Final = (
    "kind {!r} keeps no OwnershipTable in an attribute of the plugin or of its `manager`: it "
    "accepts pids that have ended, and has no limits; keep one as `plugin.table`"
)


@final
class PluginRegistry:
    """Registers resource plugins, in cleanup order, and observers; calls their hooks."""

    def __init__(self, admission: Admission) -> None:
        self.plugin_manager = HookManager()
        # To try plugins with: one that pluggy refuses would stay half registered.
        self._trial = HookManager()
        #: Decides who may acquire, in all tables.
        self.admission = admission
        #: What became of each entry point that discovery has found.
        self.discovered: list[DiscoveredPlugin] = []
        self._lock = threading.RLock()
        self._by_kind: dict[str, RegisteredKind] = {}
        # Replaced as a whole, so that a reader needs no lock.
        self._frozen: tuple[RegisteredKind, ...] = ()
        self._can_be_called_directly = True
        self._generation = 0
        forget_in_forked_child(self)
        if said := os.environ.get("PROBATE_TRACE"):
            from probate.plugins.tracing import trace_target

            self.plugin_manager.trace_calls(trace_target(said))

    def register(
        self, plugin: object, name: str | None = None, priority: int | None = None
    ) -> None:
        """Register a resource plugin under its kind, or an observer.

        `priority` replaces the plugin's own. Raises what `examine` raises, OrderingCycleError, or
        DuplicateKindError; nothing is registered then.
        """
        examined = self.examine(plugin, name, priority)
        if examined is not None and (refused := self.add([examined])):
            raise refused[examined.kind]

    def examine(
        self, plugin: object, name: str | None = None, priority: int | None = None
    ) -> RegisteredKind | None:
        """Check a resource plugin, for `add`; register an observer at once, and return None.

        An observer implements none of the required hooks, and wraps some. Raises UnknownHookError,
        MissingHookError, HookOrderError, UnusablePluginError, or InvalidOrderingError.
        """
        methods, wrapped = hooks_of(self.plugin_manager, plugin, name or type(plugin).__qualname__)
        if wrapped and not any(hook in methods for hook in REQUIRED_HOOKS):
            self.plugin_manager.register(plugin, name)
            return None
        tables = find_tables(plugin)
        kind = name or self._kind_of(plugin, tables)
        missing = [hook for hook in REQUIRED_HOOKS if hook not in methods]
        if missing:
            unmarked = [hook for hook in missing if callable(getattr(plugin, hook, None))]
            raise MissingHookError(kind, missing, unmarked)
        with self._lock:
            check_usable(kind, plugin, methods, wrapped, self._trial)
        ordering = ordering_of(kind, methods)
        if priority is not None:
            ordering = replace(ordering, priority=priority)
        is_plain = not wrapped and take_a_pid_only(methods)
        return RegisteredKind(kind, plugin, ordering, methods, tables, is_plain)

    def add(self, examined: Sequence[RegisteredKind]) -> dict[str, PluginError]:
        """Register examined resource plugins, all at once; return the errors of those refused.

        Each has its own: DuplicateKindError, UnusablePluginError, or OrderingCycleError for the
        one that closes a cycle. The others are registered.
        """
        with self._lock:
            refused: dict[str, PluginError] = {}
            by_kind, order, added = self._by_kind, list(self._frozen), []
            for registered in examined:
                try:
                    self._check_free(registered, by_kind)
                    # Sorted after each, so that the one that closes a cycle is refused.
                    more = {**by_kind, registered.kind: registered}
                    order = self._sorted(more)
                except PluginError as error:
                    refused[registered.kind] = error
                else:
                    by_kind = more
                    added.append(registered)
            if not added:
                return refused
            for registered in added:
                for table in registered.tables:
                    table.wire(registered.kind, self.admission)
            # Odd while pluggy is being changed, so that calls made meanwhile are recognised.
            self._generation += 1
            self._feed(order)
            self._by_kind = by_kind
            self._bind(order)
            self._generation += 1
        # Last: where warnings are errors, all are registered none the less.
        for registered in added:
            if not registered.tables:
                message = _UNWIRED.format(registered.kind)
                warnings.warn(message, UnwiredKindWarning, stacklevel=4)
            self.plugin_manager.warn_of_deprecated(registered.plugin)
        return refused

    def order(self) -> list[str]:
        """List all kinds, in cleanup order."""
        return [registered.kind for registered in self.frozen()]

    def get(self, kind: str) -> RegisteredKind | None:
        """Return the plugin that serves `kind`, if any."""
        return self._by_kind.get(kind)

    def unknown(self, kind: str, where: str = "") -> UnknownKindError:
        """Make the error for a kind that is not registered; it says what became of its plugin.

        `where` is the setting in which it is named.
        """
        return UnknownKindError(kind, self.order(), self.why_missing(kind), where)

    def unknown_class(self, wanted: type) -> UnknownKindError:
        """Make the error for a class of which no plugin is registered."""
        package = wanted.__module__.partition(".")[0]
        kind = package.removeprefix("probate_")
        why = self.why_missing(kind) or f"no plugin of class {wanted.__qualname__} is registered"
        return UnknownKindError(kind, self.order(), why)

    def why_missing(self, kind: str) -> str:
        """Say what became of the plugins that were found for a kind; empty if none was."""
        found = [each for each in self.discovered if each.kind == kind]
        return "; ".join(f"{each.distribution} is {each.status}: {each.reason}" for each in found)

    def asked(self) -> list[str]:
        """List whom an adoption asks, and who was found and cannot be asked, for an error."""
        missing = {
            each.kind: each.status for each in self.discovered if self.get(each.kind) is None
        }
        return [*self.order(), *(f"not {kind} ({status})" for kind, status in missing.items())]

    def check_limits(self, limits: ResourceLimits) -> None:
        """Raise TypeError for no limits, UnknownKindError for those of a kind that there is not.

        Those of a kind that was disabled hold all the same: nothing of it can be acquired.
        """
        from probate.models import ResourceLimits

        if not isinstance(limits, ResourceLimits):
            raise TypeError(f"expected ResourceLimits, got {limits!r}")
        disabled = {each.kind for each in self.discovered if each.status is PluginStatus.DISABLED}
        for kind in limits.by_kind:
            if kind not in self._by_kind and kind not in disabled:
                raise self.unknown(kind, "named in limits")

    def frozen(self) -> tuple[RegisteredKind, ...]:
        """Return all plugins, in cleanup order."""
        return self._frozen

    def owners(self, above: int = 0) -> list[int]:
        """List all pids over `above` that own something, by the plugins' tables."""
        tables = [table for kind in self._frozen for table in kind.tables]
        return sorted({pid for table in tables for pid in table.pids() if pid > above})

    def count_owned(self, above: int = 0) -> dict[str, int]:
        """Count what pids over `above` own, by kind, in cleanup order; kinds without are left out.

        By the plugins' tables: calls nobody's code, and takes no lock.
        """
        counts = {
            kind.kind: sum(
                table.count(pid) for table in kind.tables for pid in table.pids() if pid > above
            )
            for kind in self._frozen
        }
        return {kind: count for kind, count in counts.items() if count}

    def is_watched(self) -> bool:
        """Tell whether anybody takes part in calls besides the plugins themselves."""
        manager = self.plugin_manager
        return (
            bool(manager.monitors)
            or manager.plugin_count != len(self._frozen)
            or not self._can_be_called_directly
        )

    def clean(self, kind: RegisteredKind, pid: int) -> list[CleanupStats]:
        """Call a plugin's `cleanup`, and all observers; return a list, as pluggy does."""
        if not self.is_watched():
            return [kind.clean_directly(pid)]
        generation = self._generation
        answers: list[CleanupStats] = kind.cleanup(pid=pid)
        if not answers or generation % 2 or generation != self._generation:
            # Pluggy was changed meanwhile, and may have left the plugin out.
            answers = [*answers, self.call_alone(kind, "cleanup", pid)]
        return answers

    def call_alone(self, kind: RegisteredKind, hook: str, pid: int) -> Any:
        """Call a plugin's hook without observers, who may be at fault; a trace shows it still."""
        function = kind.methods[hook]
        trace = self.plugin_manager.trace_of_calls
        return function(pid) if trace is None else trace.alone(hook, kind.kind, pid, function)

    def quiesce(self, kind: RegisteredKind, pid: int) -> list[Iterable[AnyFuture]]:
        """Call a plugin's `quiesce`, and all observers; return a list, as pluggy does."""
        if self.is_watched():
            answers: list[Iterable[AnyFuture]] = kind.quiesce(pid=pid)
            return answers
        answer = kind.quiesce_directly(pid)
        return [] if answer is None else [answer]

    def kinds_in_use(self, pid: int, before: KindsInUse | None = None) -> KindsInUse:
        """Ask every kind whether `pid` owns anything; never raises.

        `before` is an earlier answer, since which `pid` could acquire nothing. A kind with tables
        of which it owned nothing then is not asked again, unless somebody observes.
        """
        interrupt: BaseException | None = None
        frozen = self._frozen
        try:
            kinds = self._ask_all(pid, frozen, before)
            if kinds is not None:
                return KindsInUse(kinds, [], None, frozen) if kinds else NO_KINDS
        except BaseException as error:
            # A kind or an observer raised. Asked one by one, the kinds show which.
            interrupt = error if fell_in(error) else None
        holding = []
        failures: list[tuple[RegisteredKind, BaseException]] = []
        for kind in frozen:
            try:
                holds = bool(self.call_alone(kind, "has_resources", pid))
            except BaseException as error:
                if fell_in(error):
                    interrupt = interrupt or error
                failures.append((kind, error))
                holds = True
            if holds:
                holding.append(kind)
        return KindsInUse(holding, failures, interrupt, frozen)

    def _ask_all(
        self, pid: int, frozen: tuple[RegisteredKind, ...], before: KindsInUse | None
    ) -> list[RegisteredKind] | None:
        """Return the kinds in use; None if it is not certain which answer is whose."""
        generation = self._generation
        if not self.is_watched():
            if before is None or before.order is not frozen:
                return [kind for kind in frozen if kind.holds(pid)]
            held = before.kinds
            return [
                kind for kind in frozen if (kind in held or not kind.tables) and kind.holds(pid)
            ]
        # One call for all, answered in cleanup order, since pluggy calls in that order. An answer
        # of None is missing from the list.
        answers: list[bool] = self.plugin_manager.hook.has_resources(pid=pid) if frozen else []
        is_unchanged = generation == self._generation and not generation % 2
        if not is_unchanged or len(answers) != len(frozen):
            return None
        return [kind for kind, holds in zip(frozen, answers, strict=True) if holds]

    def forget_parent(self) -> None:
        """Take a new lock, in a forked child."""
        self._lock = threading.RLock()

    def check_pending(self) -> None:
        """Raise UnknownHookError for a misspelt hook of a plugin given to pluggy directly."""
        try:
            self.plugin_manager.check_pending()
        except pluggy.PluginValidationError as error:
            name = self.plugin_manager.get_name(error.plugin) or repr(error.plugin)
            hooks_of(self.plugin_manager, error.plugin, name)
            raise

    # -- inside --------------------------------------------------------------

    def _check_free(
        self, registered: RegisteredKind, by_kind: Mapping[str, RegisteredKind]
    ) -> None:
        kind, manager = registered.kind, self.plugin_manager
        if kind in by_kind or manager.has_plugin(kind):
            raise DuplicateKindError(kind)
        if any(table.admission not in (None, self.admission) for table in registered.tables):
            raise UnusablePluginError(
                kind,
                "this very object serves another orchestrator, and the pids of two would be taken "
                "for one: make a new one for each (an entry point names a class or a function)",
            )
        others = [other.kind for other in by_kind.values() if other.plugin is registered.plugin]
        if others or manager.is_registered(registered.plugin):
            other = others[0] if others else manager.get_name(registered.plugin)
            raise UnusablePluginError(kind, f"it is registered already, as {other!r}")

    @staticmethod
    def _kind_of(plugin: object, tables: Sequence[OwnershipTable[Any]]) -> str:
        own = getattr(plugin, "kind", None)
        if isinstance(own, str):
            return own
        kinds = {table.kind for table in tables}
        return kinds.pop() if len(kinds) == 1 else type(plugin).__qualname__

    @staticmethod
    def _sorted(by_kind: dict[str, RegisteredKind]) -> list[RegisteredKind]:
        orderings = {kind: registered.ordering for kind, registered in by_kind.items()}
        return [by_kind[kind] for kind in cleanup_order(orderings)]

    def _bind(self, order: Sequence[RegisteredKind]) -> None:
        plugins = [registered.plugin for registered in order]
        for registered in order:
            others = [plugin for plugin in plugins if plugin is not registered.plugin]
            registered.bind(self.plugin_manager, others)
        self._can_be_called_directly = all(each.can_be_called_directly for each in order)
        self._frozen = tuple(order)

    def _feed(self, order: Sequence[RegisteredKind]) -> None:
        """Register with pluggy so that its order, the last registered first, is the cleanup order.

        Plugins that are in their place already are left alone. A call that is made meanwhile may
        miss its plugin, which is then called directly; see `clean` and `kinds_in_use`.
        """
        manager = self.plugin_manager
        wanted = list(reversed(order))
        before = [
            plugin
            for _, plugin in manager.list_name_plugin()
            if any(plugin is registered.plugin for registered in order)
        ]
        keep = 0
        while keep < len(before) and before[keep] is wanted[keep].plugin:
            keep += 1
        for plugin in before[keep:]:
            manager.unregister(plugin)
        for registered in wanted[keep:]:
            manager.enroll(registered.plugin, registered.kind)
