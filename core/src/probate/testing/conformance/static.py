"""The static part of the kit: what can be told of a kind without making anything of it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from probate import ResourceKind, ResourceOrchestrator, hookspecs
from probate.errors import PluginError, describe_error
from probate.hookspecs import PROJECT, REQUIRED_HOOKS
from probate.orchestrator import registry_of
from probate.ownership.release import is_async
from probate.plugins.contract import arguments_of, is_inherited
from probate.plugins.discovery import kinds_of_the_core, scan
from probate.system.spelling import nearest
from probate.testing.conformance.fault import ConformanceError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from probate.plugins.registered import RegisteredKind

#: The arguments of each hook, by name, in order.
_ARGUMENTS: Final[Mapping[str, list[str]]] = {
    name: list(inspect.signature(value).parameters)
    for name, value in vars(hookspecs).items()
    if hasattr(value, f"{PROJECT}_spec")
}

#: What is said of a plugin that is no kind, which is no fault of an observer.
OBSERVES: Final = "it only wraps hooks: it is an observer, and no kind"

#: Hooks that may yield what they return.
_ITERABLE: Final = {"quiesce", "observe"}


def check_statically(
    make_kind: Callable[[], Any], name: str | None = None, *, other_kinds: Collection[str] = ()
) -> None:
    """Check what can be told of a kind before anything is made of it. Raises ConformanceError.

    `make_kind` is what its entry point names, `name` its kind. `before` and `after` may name kinds
    that are installed, those that the core's extra `all` installs, and `other_kinds`.
    """
    kind, faults = find_faults(make_kind, name, other_kinds=other_kinds)
    if faults:
        raise ConformanceError(kind, faults)


def find_faults(
    make_kind: Callable[[], Any], name: str | None = None, *, other_kinds: Collection[str] = ()
) -> tuple[str, list[str]]:
    """Return the kind's name, and a line for each fault that it has."""
    called = name or str(getattr(make_kind, "__name__", "?"))
    try:
        plugin, another = make_kind(), make_kind()
    except (Exception, SystemExit) as error:
        return called, [f"it cannot be made: {describe_error(error)}"]
    if plugin is another:
        return called, ["the same object each time: a new kind is to be made for each orchestrator"]
    faults = list(_unmarked(plugin))
    orchestrator = ResourceOrchestrator()
    try:
        registry = registry_of(orchestrator)
        registered = registry.examine(plugin, name)
        if registered is None:
            return called, [OBSERVES]
        called = registered.kind
        twin = registry.examine(another, name)
    except PluginError as error:
        return called, [str(error), *faults]
    faults += _wrong_signatures(registered)
    faults += _wrong_functions(registered)
    faults += _wrong_tables(registered, twin)
    faults += _wrong_places(registered, other_kinds)
    return called, faults


def _unmarked(plugin: object) -> Iterator[str]:
    """Look for methods that are called like hooks, and are none."""
    for hook in _ARGUMENTS:
        if hook in REQUIRED_HOOKS and not isinstance(plugin, ResourceKind):
            continue  # that one is missing, and registration says so
        # As pluggy looks: an attribute of its own hides a marked method.
        method = getattr(plugin, hook, None)
        if callable(method) and not hasattr(method, f"{PROJECT}_impl"):
            yield (
                f"{hook}() is there, but has no mark: nobody calls it; mark it with "
                "@probate.hookimpl"
            )


def _wrong_signatures(registered: RegisteredKind) -> Iterator[str]:
    """Look for hooks that pluggy calls with less than they expect, or that return the wrong."""
    for hook, method in registered.methods.items():
        wanted = _ARGUMENTS[hook]
        named = arguments_of(method)
        if sorted(named) != sorted(wanted):
            parameters = inspect.signature(method).parameters.values()
            written = ", ".join(str(each.replace(annotation=each.empty)) for each in parameters)
            is_called_with = ", ".join(each for each in wanted if each in named) or "nothing"
            yield (
                f"{hook}({written}) is called with {is_called_with}: arguments are passed by name, "
                f"and not if they have a default, so write {hook}({', '.join(wanted)})"
            )
        if inspect.isgeneratorfunction(method) and hook not in _ITERABLE:
            yield f"{hook}() is a generator function, and nobody iterates over it"
    if "noticed" in registered.methods and "reclaim" not in registered.methods:
        yield "noticed() makes records on which nobody can act: it takes a reclaim() as well"


def _wrong_functions(registered: RegisteredKind) -> Iterator[str]:
    """Look for functions that a ResourceKind was given, and cannot call."""
    if isinstance(kind := registered.plugin, ResourceKind):
        for hook, method in registered.methods.items():
            function = kind.written_for(hook) if is_inherited(hook, method) else None
            if function is not None:
                yield from _uncallable(f"the {hook} function", function, _ARGUMENTS[hook])
    for table in registered.tables:
        if (release := table.releaser.function) is not None:
            yield from _uncallable("the release function", release, ["resource"], may_await=True)


def _uncallable(
    what: str, function: object, arguments: list[str], *, may_await: bool = False
) -> Iterator[str]:
    if not callable(function):
        yield f"{what} cannot be called: {function!r}"
        return
    if is_async(function) and not may_await:
        yield f"{what} is a coroutine function, and nobody awaits it"
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        yield f"{what} has to take {', '.join(arguments)}: {function!r}"
    except ValueError:
        # One of C, that does not say.
        return


def _wrong_tables(registered: RegisteredKind, twin: RegisteredKind | None) -> Iterator[str]:
    """Look for tables that are missing, or that several orchestrators would share."""
    if not registered.tables:
        yield (
            "no OwnershipTable in an attribute of the plugin or of its `manager`: it accepts pids "
            "that have ended, and has no limits; keep one as `plugin.table`"
        )
    elif twin is not None and any(table in twin.tables for table in registered.tables):
        yield (
            "one table for all managers: two kinds made one after the other share it, and pid 1 of "
            "one manager would be taken for pid 1 of another; make it in __init__"
        )


def _wrong_places(registered: RegisteredKind, other_kinds: Collection[str]) -> Iterator[str]:
    """Look for names in `before` and `after` that no kind has."""
    known = {*(each.kind for each in scan()), *kinds_of_the_core(), *other_kinds}
    ordering = registered.ordering
    for field, names in (("before", ordering.before), ("after", ordering.after)):
        for each in names:
            if each == registered.kind:
                yield f"`{field}` names the kind itself"
            elif each not in known:
                near = nearest(each, known)
                hint = f"did you mean {near!r}?" if near else "is it installed?"
                yield f"`{field}` names {each!r}, and no kind is called so: {hint}"
    if both := set(ordering.before) & set(ordering.after):
        yield f"both `before` and `after` name {min(both)!r}"
