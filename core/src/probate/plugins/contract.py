"""Checks whether a plugin keeps the contract, at registration and not at the first cleanup."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import pluggy

from probate import hookspecs
from probate.errors import (
    HookOrderError,
    InvalidOrderingError,
    UnknownHookError,
    UnusablePluginError,
)
from probate.hookspecs import PROJECT
from probate.ordering import Ordering
from probate.plugins.kind import ResourceKind
from probate.system.spelling import nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.plugins.hookmanager import HookManager

_KNOWN_HOOKS: Final = tuple(
    name for name, value in vars(hookspecs).items() if hasattr(value, f"{PROJECT}_spec")
)


def hooks_of(
    manager: pluggy.PluginManager, plugin: object, name: str
) -> tuple[dict[str, Callable[..., Any]], set[str]]:
    """Return a plugin's own implementations by hook, and the hooks that it wraps.

    Raises UnknownHookError for a misspelt hook, HookOrderError for tryfirst or trylast,
    UnusablePluginError for a ResourceKind that was not initialised.
    """
    if isinstance(plugin, ResourceKind) and not hasattr(plugin, "_functions"):
        raise UnusablePluginError(
            name, "its __init__ has to call super().__init__(table, ordering), and does not"
        )
    methods: dict[str, Callable[..., Any]] = {}
    wrapped: set[str] = set()
    jumping: list[str] = []
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if options is None:
            continue
        hook = options.get("specname") or attribute
        if hook not in _KNOWN_HOOKS:
            if options.get("optionalhook"):
                continue
            raise UnknownHookError(name, hook, nearest(hook, _KNOWN_HOOKS))
        if options.get("wrapper") or options.get("hookwrapper"):
            wrapped.add(hook)
            continue
        methods[hook] = getattr(plugin, attribute)
        if options.get("tryfirst") or options.get("trylast"):
            jumping.append(hook)
    if jumping and "ordering" in methods:
        raise HookOrderError(name, jumping[0])
    return methods, wrapped


def is_inherited(hook: str, method: Callable[..., Any]) -> bool:
    """Tell whether an implementation is the one that every ResourceKind has, known to be right."""
    return getattr(method, "__func__", None) is getattr(ResourceKind, hook)


def check_usable(
    kind: str,
    plugin: object,
    methods: dict[str, Callable[..., Any]],
    wrapped: set[str],
    trial: HookManager,
) -> None:
    """Check that pluggy can work with a plugin, by registering it with `trial` for a moment.

    Not where all hooks are inherited. Raises UnusablePluginError.
    """
    if type(plugin).__hash__ is None:
        raise UnusablePluginError(
            kind, "it has no hash, which a plugin needs (a dataclass: eq=False)"
        )
    if not wrapped and all(is_inherited(*each) for each in methods.items()):
        return
    for hook, method in methods.items():
        if inspect.iscoroutinefunction(method):
            raise UnusablePluginError(
                kind, f"{hook}() is a coroutine function, and nobody awaits it"
            )
    try:
        trial.enroll(plugin, kind)
    except pluggy.PluginValidationError as error:
        raise UnusablePluginError(kind, " ".join(str(error).split())) from error
    finally:
        # Some versions of pluggy have unregistered what they refuse, others have not.
        if trial.is_registered(plugin):
            trial.unregister(plugin)


def take_a_pid_only(methods: dict[str, Callable[..., Any]]) -> bool:
    """Tell whether these hooks take exactly a pid; pluggy also calls those that take nothing."""
    called = ("has_resources", "cleanup", "quiesce")
    return all(
        is_inherited(hook, method) or arguments_of(method) == ["pid"]
        for hook, method in methods.items()
        if hook in called
    )


def arguments_of(method: Callable[..., Any]) -> list[str]:
    """List what a hook's implementation wants to be passed; what has a default never is.

    What cannot be passed by a name, such as `*args`, stands there by another.
    """
    wanted = [
        each for each in inspect.signature(method).parameters.values() if each.default is each.empty
    ]
    return [
        each.name if each.kind is each.POSITIONAL_OR_KEYWORD else f"{each.kind.name} {each.name}"
        for each in wanted
    ]


def ordering_of(kind: str, methods: dict[str, Callable[..., Any]]) -> Ordering:
    """Ask a plugin for its place in the cleanup order. Raises InvalidOrderingError."""
    try:
        ordering = methods["ordering"]()
    except Exception as error:
        raise InvalidOrderingError(kind, f"raised {type(error).__name__}: {error}") from error
    if not isinstance(ordering, Ordering):
        got = "a coroutine" if inspect.iscoroutine(ordering) else repr(ordering)
        raise InvalidOrderingError(kind, f"must return probate.Ordering, got {got}")
    return ordering
