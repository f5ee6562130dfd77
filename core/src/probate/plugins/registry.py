"""The registered plugins: validated, sorted, and callable one by one through pluggy."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import pluggy

from probate.errors import (
    DuplicateKindError,
    MissingHookError,
    PluginError,
    UnusablePluginError,
)
from probate.hookspecs import REQUIRED_HOOKS
from probate.plugins.contract import check_usable, hooks_of, ordering_of, take_just_a_pid
from probate.plugins.hookmanager import HookManager
from probate.plugins.order import cleanup_order
from probate.plugins.registered import RegisteredKind
from probate.plugins.wiring import UnwiredKindWarning, find_tables
from probate.system.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from probate.hookspecs import AnyFuture
    from probate.models import CleanupStats
    from probate.ownership.admission import Admission
    from probate.ownership.table import OwnershipTable


@final
class KindsInUse(NamedTuple):
    """Who holds something of one pid."""

    #: In cleanup order. A kind that cannot be asked counts: its cleanup finds out.
    kinds: list[RegisteredKind]
    #: What came out of the kinds that could not be asked.
    failures: list[tuple[RegisteredKind, BaseException]]
    #: A KeyboardInterrupt or SystemExit that fell into the asking.
    interrupt: BaseException | None
    #: Those that were asked.
    order: Sequence[RegisteredKind]


#: Nobody holds anything, and everybody could be asked.
NO_KINDS: Final = KindsInUse([], [], None, ())


_UNWIRED: Final = (
    "kind {!r} keeps no OwnershipTable in an attribute of the plugin or of its `manager`: it "
    "accepts the dead, and knows no limits; keep one as `plugin.table`"
)


@final
class PluginRegistry:
    """Resource plugins by kind, in cleanup order; observers beside them."""

    def __init__(self, admission: Admission) -> None:
        self.plugin_manager = HookManager()
        # One that pluggy refuses half-way would stay half registered.
        self._trial = HookManager()
        #: Who may acquire, in all tables.
        self.admission = admission
        self._lock = threading.RLock()
        self._by_kind: dict[str, RegisteredKind] = {}
        # Replaced as a whole, so that a reader needs no lock.
        self._frozen: tuple[RegisteredKind, ...] = ()
        self._can_be_called_directly = True
        self._generation = 0
        forget_in_forked_child(self)

    def register(
        self, plugin: object, name: str | None = None, priority: int | None = None
    ) -> None:
        """Register a resource plugin under its kind, or an observer.

        `priority` takes the place of the plugin's own.

        Raises as `examine`, and OrderingCycleError, DuplicateKindError, with nothing registered.
        """
        examined = self.examine(plugin, name, priority)
        if examined is not None and (refused := self.add([examined])):
            raise refused[examined.kind]

    def examine(
        self, plugin: object, name: str | None = None, priority: int | None = None
    ) -> RegisteredKind | None:
        """Check a resource plugin, for `add`; register an observer at once, and return None.

        A plugin that implements none of the required hooks, and wraps some, is an observer.

        Raises UnknownHookError, MissingHookError, HookOrderError, UnusablePluginError,
        InvalidOrderingError.
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
            check_usable(kind, plugin, methods, self._trial)
        ordering = ordering_of(kind, methods)
        if priority is not None:
            ordering = replace(ordering, priority=priority)
        return RegisteredKind(
            kind,
            plugin,
            ordering,
            methods,
            tables,
            can_be_called_directly=not wrapped and take_just_a_pid(methods),
        )

    def add(self, examined: Sequence[RegisteredKind]) -> dict[str, PluginError]:
        """Register resource plugins; pluggy is fed once for all of them.

        Returns why any of them was refused, by kind: DuplicateKindError, UnusablePluginError, or
        OrderingCycleError for the one that closes a cycle. The others are registered.
        """
        with self._lock:
            refused: dict[str, PluginError] = {}
            by_kind, order, added = self._by_kind, list(self._frozen), []
            for registered in examined:
                try:
                    self._check_free(registered, by_kind)
                    # Sorted with each in turn: whoever closes a cycle is found, and nobody else.
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
                if not registered.tables:
                    warnings.warn(
                        _UNWIRED.format(registered.kind), UnwiredKindWarning, stacklevel=4
                    )
            # Odd while pluggy is being changed, so that a call across it can be told.
            self._generation += 1
            self._feed(order)
            self._by_kind = by_kind
            self._bind(order)
            self._generation += 1
        return refused

    def order(self) -> list[str]:
        """All kinds, in cleanup order."""
        return [registered.kind for registered in self.frozen()]

    def get(self, kind: str) -> RegisteredKind | None:
        """The plugin that serves `kind`, if any."""
        return self._by_kind.get(kind)

    def frozen(self) -> tuple[RegisteredKind, ...]:
        """All kinds in cleanup order, their callers built."""
        return self._frozen

    def owners(self) -> set[int]:
        """All pids that own something, by the plugins' tables."""
        return {pid for kind in self._frozen for table in kind.tables for pid in table.pids()}

    def is_watched(self) -> bool:
        """Whether anybody takes part in calls besides the plugins themselves."""
        manager = self.plugin_manager
        return (
            manager.monitor_count > 0
            or manager.plugin_count != len(self._frozen)
            or not self._can_be_called_directly
        )

    def clean(self, kind: RegisteredKind, pid: int) -> list[CleanupStats]:
        """Call a plugin's `cleanup`, and all observers around it; as a list, as hooks answer."""
        if not self.is_watched():
            return [kind.clean_directly(pid)]
        generation = self._generation
        answers: list[CleanupStats] = kind.cleanup(pid=pid)
        if not answers or generation % 2 or generation != self._generation:
            # Pluggy was being changed when the call began, and may have missed the plugin.
            answers = [*answers, kind.clean_directly(pid)]
        return answers

    def quiesce(self, kind: RegisteredKind, pid: int) -> list[Iterable[AnyFuture]]:
        """Call a plugin's `quiesce`, and all observers around it; as a list, as hooks answer."""
        if self.is_watched():
            answers: list[Iterable[AnyFuture]] = kind.quiesce(pid=pid)
            return answers
        answer = kind.quiesce_directly(pid)
        return [] if answer is None else [answer]

    def kinds_in_use(self, pid: int, before: KindsInUse | None = None) -> KindsInUse:
        """Ask every kind whether `pid` owns anything; never raises.

        `before` is an earlier answer, from when `pid` was let in no more. A kind that keeps its
        books in wired tables, and had nothing then, has nothing since; it is asked again only
        where somebody looks on.
        """
        interrupt: BaseException | None = None
        frozen = self._frozen
        try:
            kinds = self._ask_all(pid, frozen, before)
            if kinds is not None:
                return KindsInUse(kinds, [], None, frozen) if kinds else NO_KINDS
        except BaseException as error:
            # Somebody failed; asked one by one, the kinds show who.
            interrupt = error if isinstance(error, (KeyboardInterrupt, SystemExit)) else None
        holding = []
        failures: list[tuple[RegisteredKind, BaseException]] = []
        for kind in frozen:
            try:
                holds = bool(kind.holds(pid))
            except BaseException as error:
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    interrupt = interrupt or error
                failures.append((kind, error))
                holds = True
            if holds:
                holding.append(kind)
        return KindsInUse(holding, failures, interrupt, frozen)

    def _ask_all(
        self, pid: int, frozen: tuple[RegisteredKind, ...], before: KindsInUse | None
    ) -> list[RegisteredKind] | None:
        """The kinds that hold something; None if the answers cannot be told apart."""
        generation = self._generation
        if not self.is_watched():
            if before is None or before.order is not frozen:
                return [kind for kind in frozen if kind.holds(pid)]
            held = before.kinds
            return [
                kind for kind in frozen if (kind in held or not kind.tables) and kind.holds(pid)
            ]
        # One call for all: the answers come in cleanup order, since that is the order in
        # which pluggy calls, and no answer may be None.
        answers: list[bool] = self.plugin_manager.hook.has_resources(pid=pid) if frozen else []
        is_of_one_piece = generation == self._generation and not generation % 2
        if not is_of_one_piece or len(answers) != len(frozen):
            return None
        return [kind for kind, holds in zip(frozen, answers, strict=True) if holds]

    def forget_parent(self) -> None:
        """Have a lock of its own, in a forked child."""
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
        if any(table.is_wired_elsewhere(self.admission) for table in registered.tables):
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
        kinds = {table.kind for table in tables}
        own = getattr(plugin, "kind", None)
        if isinstance(own, str):
            return own
        if len(kinds) == 1:
            return kinds.pop()
        return type(plugin).__qualname__

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
        """Register with pluggy so that its last-registered-first order is the cleanup order.

        Plugins that stand right already are left alone. A call that is started meanwhile may
        miss its plugin, which is then called directly; see `clean` and `holders`.
        """
        manager = self.plugin_manager
        wanted = list(reversed(order))
        standing = [
            plugin
            for _, plugin in manager.list_name_plugin()
            if any(plugin is registered.plugin for registered in order)
        ]
        keep = 0
        while keep < len(standing) and standing[keep] is wanted[keep].plugin:
            keep += 1
        for plugin in standing[keep:]:
            manager.unregister(plugin)
        for registered in wanted[keep:]:
            manager.register(registered.plugin, registered.kind)
