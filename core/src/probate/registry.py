"""The registered plugins: validated, sorted, and callable one by one through pluggy."""

from __future__ import annotations

import difflib
import inspect
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import pluggy

from probate import hookspecs
from probate.errors import (
    DuplicateKindError,
    HookOrderError,
    InvalidOrderingError,
    MissingHookError,
    UnknownHookError,
    UnusablePluginError,
)
from probate.forking import forget_in_forked_child
from probate.hookmanager import HookManager
from probate.hookspecs import PROJECT, REQUIRED_HOOKS
from probate.kind import RegisteredKind
from probate.ordering import Ordering, cleanup_order
from probate.wiring import find_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from probate.admission import Admission
    from probate.hookspecs import AnyFuture
    from probate.models import CleanupStats
    from probate.ownership import OwnershipTable

_KNOWN_HOOKS: Final = tuple(
    name for name, value in vars(hookspecs).items() if hasattr(value, f"{PROJECT}_spec")
)


@final
class Holders(NamedTuple):
    """Who holds something of one pid."""

    #: In cleanup order. A kind that cannot be asked counts: its cleanup finds out.
    kinds: list[RegisteredKind]
    #: What came out of the kinds that could not be asked.
    failures: list[tuple[RegisteredKind, BaseException]]
    #: A KeyboardInterrupt or SystemExit that fell into the asking.
    interrupt: BaseException | None
    #: Those that were asked.
    order: Sequence[RegisteredKind]

    @property
    def found_any(self) -> bool:
        """Whether there is anything to be done."""
        return bool(self.kinds) or self.interrupt is not None


@final
class PluginRegistry:
    """Resource plugins by kind, in cleanup order; observers beside them."""

    def __init__(self, admission: Admission) -> None:
        self.plugin_manager = HookManager()
        self._admission = admission
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

        A plugin that implements none of the required hooks, and wraps some, is an observer.

        Raises UnknownHookError, MissingHookError, HookOrderError, UnusablePluginError,
        InvalidOrderingError, OrderingCycleError, DuplicateKindError, with nothing registered.
        """
        methods, wrapped = self._hooks_of(plugin, name or type(plugin).__qualname__)
        if wrapped and not any(hook in methods for hook in REQUIRED_HOOKS):
            self.plugin_manager.register(plugin, name)
            return
        tables = find_tables(plugin, name or "")
        kind = name or self._kind_of(plugin, tables)
        missing = [hook for hook in REQUIRED_HOOKS if hook not in methods]
        if missing:
            unmarked = [hook for hook in missing if callable(getattr(plugin, hook, None))]
            raise MissingHookError(kind, missing, unmarked)
        _check_usable(kind, plugin, methods)
        ordering = _ordering_of(kind, methods)
        if priority is not None:
            ordering = replace(ordering, priority=priority)
        registered = RegisteredKind(
            kind,
            plugin,
            ordering,
            methods,
            tables,
            can_be_called_directly=not wrapped and _take_just_a_pid(methods),
        )
        with self._lock:
            manager = self.plugin_manager
            if kind in self._by_kind or manager.has_plugin(kind):
                raise DuplicateKindError(kind)
            if manager.is_registered(plugin):
                other = manager.get_name(plugin)
                raise UnusablePluginError(kind, f"it is registered already, as {other!r}")
            # Sorting first: a cycle is found before anything has changed.
            by_kind = {**self._by_kind, kind: registered}
            order = self._sorted(by_kind)
            for table in tables:
                table.wire(kind, self._admission)
            # Odd while pluggy is being changed, so that a call across it can be told.
            self._generation += 1
            self._feed(order)
            self._by_kind = by_kind
            self._bind(order)
            self._generation += 1

    def order(self) -> list[str]:
        """All kinds, in cleanup order."""
        return [registered.kind for registered in self.frozen()]

    def get(self, kind: str) -> RegisteredKind | None:
        """The plugin that serves `kind`, if any."""
        return self._by_kind.get(kind)

    def frozen(self) -> tuple[RegisteredKind, ...]:
        """All kinds in cleanup order, their callers built."""
        return self._frozen

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

    def holders(self, pid: int, before: Holders | None = None) -> Holders:
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
                return Holders(kinds, [], None, frozen)
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
        return Holders(holding, failures, interrupt, frozen)

    def _ask_all(
        self, pid: int, frozen: tuple[RegisteredKind, ...], before: Holders | None
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
            self._hooks_of(error.plugin, name)
            raise

    # -- inside --------------------------------------------------------------

    def _hooks_of(
        self, plugin: object, name: str
    ) -> tuple[dict[str, Callable[..., Any]], set[str]]:
        """A plugin's own implementations by hook, and the hooks that it wraps."""
        methods: dict[str, Callable[..., Any]] = {}
        wrapped: set[str] = set()
        jumping: list[str] = []
        for attribute in dir(plugin):
            options = self.plugin_manager.parse_hookimpl_opts(plugin, attribute)
            if options is None:
                continue
            hook = options.get("specname") or attribute
            if hook not in _KNOWN_HOOKS:
                if options.get("optionalhook"):
                    continue
                raise UnknownHookError(name, hook, _nearest(hook))
            if options.get("wrapper") or options.get("hookwrapper"):
                wrapped.add(hook)
                continue
            methods[hook] = getattr(plugin, attribute)
            if options.get("tryfirst") or options.get("trylast"):
                jumping.append(hook)
        if jumping and "ordering" in methods:
            raise HookOrderError(name, jumping[0])
        return methods, wrapped

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


def _check_usable(kind: str, plugin: object, methods: dict[str, Callable[..., Any]]) -> None:
    """Raise UnusablePluginError for what pluggy could not work with, before it has to."""
    if type(plugin).__hash__ is None:
        raise UnusablePluginError(
            kind, "it has no hash, which a plugin needs (a dataclass: eq=False)"
        )
    for hook, method in methods.items():
        if inspect.iscoroutinefunction(method):
            raise UnusablePluginError(
                kind, f"{hook}() is a coroutine function, and nobody awaits it"
            )
    trial = pluggy.PluginManager(PROJECT)
    trial.add_hookspecs(hookspecs)
    try:
        trial.register(plugin, kind)
    except pluggy.PluginValidationError as error:
        raise UnusablePluginError(kind, " ".join(str(error).split())) from error


def _take_just_a_pid(methods: dict[str, Callable[..., Any]]) -> bool:
    """Whether those hooks that are called the most take what is specified, and no less."""
    called = [methods[hook] for hook in ("has_resources", "cleanup", "quiesce") if hook in methods]
    return all(list(inspect.signature(method).parameters) == ["pid"] for method in called)


def _ordering_of(kind: str, methods: dict[str, Callable[..., Any]]) -> Ordering:
    try:
        ordering = methods["ordering"]()
    except Exception as error:
        raise InvalidOrderingError(kind, f"raised {type(error).__name__}: {error}") from error
    if not isinstance(ordering, Ordering):
        got = "a coroutine" if inspect.iscoroutine(ordering) else repr(ordering)
        raise InvalidOrderingError(kind, f"must return probate.Ordering, got {got}")
    return ordering


def _nearest(hook: str) -> str | None:
    matches = difflib.get_close_matches(hook, _KNOWN_HOOKS, n=1)
    return matches[0] if matches else None
