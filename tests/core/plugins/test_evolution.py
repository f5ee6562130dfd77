"""How the contract may change: what plugins that were written before go on doing, and are told."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

import pluggy
import pytest
from plugins_things import Thing

from probate import (
    CleanupStats,
    Ordering,
    OwnershipTable,
    ResourceKind,
    ResourceOrchestrator,
    UnknownHookError,
    UnusablePluginError,
    hookimpl,
    hookspecs,
)
from probate.hookspecs import PROJECT, HookDeprecationWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from probate.hookspecs import AnyFuture

later = pluggy.HookspecMarker(PROJECT)

#: The arguments of each hook as probate 0.1 had them. What is here stays.
AS_OF_0_1 = {
    "ordering": [],
    "has_resources": ["pid"],
    "cleanup": ["pid"],
    "quiesce": ["pid"],
    "adopt": ["pid", "resource"],
    "observe": ["process"],
    "reclaim": ["record", "dry_run"],
    "usage": ["pid"],
    "noticed": ["notice"],
}


class Plain:
    """A plugin that has what it takes, and no more."""

    def __init__(self) -> None:
        self.table: OwnershipTable[Thing] = OwnershipTable("plain", Thing.release)

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(1)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return pid in self.table

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        return self.table.cleanup(pid)


class Asking(Plain):
    """With a `quiesce`."""

    @hookimpl
    def quiesce(self, pid: int) -> Iterable[AnyFuture]:
        return ()


class Watching:
    """An observer of it."""

    @hookimpl(wrapper=True)
    def quiesce(self, pid: int) -> Generator[None, Any, Any]:
        return (yield)


def asking_kind() -> ResourceKind:
    """The same, made of functions."""
    table = OwnershipTable("made", Thing.release)
    return ResourceKind(table, Ordering(1), quiesce=ask)


def ask(pid: int) -> None:
    return None


class Subclass(ResourceKind):
    """The same, as a subclass."""

    def __init__(self) -> None:
        super().__init__(OwnershipTable("sub", Thing.release), Ordering(1))

    @hookimpl
    def quiesce(self, pid: int) -> Iterable[AnyFuture]:
        return ()


@pytest.mark.parametrize("hook", AS_OF_0_1)
def test_no_argument_goes_away(hook: str) -> None:
    """Nor does a hook, nor is one renamed, before it has been deprecated for a release."""
    arguments = list(inspect.signature(getattr(hookspecs, hook)).parameters)

    assert arguments[: len(AS_OF_0_1[hook])] == AS_OF_0_1[hook]


def test_a_plugin_goes_on_working_when_its_hook_gets_an_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Called directly, and by pluggy beside one that takes it; each gets what it names."""
    seen: list[tuple[int, object]] = []

    class Newer(Plain):
        @hookimpl
        def cleanup(self, pid: int, reason: object) -> CleanupStats:  # type: ignore[override]  # later
            seen.append((pid, reason))
            return CleanupStats()

    @later
    def cleanup(pid: int, reason: object = None) -> None:
        """Release all, for a reason."""

    monkeypatch.setattr(hookspecs, "cleanup", cleanup)
    old, orchestrator = Plain(), ResourceOrchestrator()
    orchestrator.register(old, "old")
    old.table.add(1, Thing())
    alone = orchestrator.cleanup_process(1)
    orchestrator.register(Newer(), "newer")
    old.table.add(2, Thing())
    orchestrator.plugin_manager.hook.cleanup(pid=2, reason="asked")

    assert alone.stats.by_type == {"old": 1}
    assert 2 not in old.table
    assert seen == [(2, "asked")]


def test_a_plugin_may_take_less_than_there_is() -> None:
    """As one does that was written before there was more: pluggy passes what it names."""
    things = []

    class Older(Plain):
        @hookimpl
        def adopt(self, resource: object) -> None:
            things.append(resource)

    orchestrator = ResourceOrchestrator().register(older := Older(), "older")
    older.table.add(1, thing := Thing())

    assert orchestrator.plugin_manager.hook.adopt(pid=1, resource=thing) is None
    assert things == [thing]
    assert orchestrator.cleanup_process(1).stats.by_type == {"older": 1}


def deprecate_quiesce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the hook deprecated, as a later version may."""

    @later(warn_on_impl=HookDeprecationWarning("0.3", "0.5", "implement appease()"))
    def quiesce(pid: int) -> None:
        """Ask to stop."""

    monkeypatch.setattr(hookspecs, "quiesce", quiesce)


def deprecate_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an argument deprecated."""

    @later(warn_on_impl_args={"pid": HookDeprecationWarning("0.3", "0.5", "take `process`")})
    def quiesce(pid: int, process: object = None) -> None:
        """Ask to stop."""

    monkeypatch.setattr(hookspecs, "quiesce", quiesce)


FORMS = [
    pytest.param(Asking, Asking.quiesce, id="hooks"),
    pytest.param(asking_kind, ask, id="functions"),
    pytest.param(Subclass, Subclass.quiesce, id="subclass"),
    pytest.param(Watching, Watching.quiesce, id="observer"),
]


@pytest.mark.parametrize("way", ["orchestrator", "pluggy"])
@pytest.mark.parametrize(("make", "function"), FORMS)
def test_whoever_has_a_deprecated_hook_is_told(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], object], function: Any, way: str
) -> None:
    """Once: who, since when, until when, what instead, and on which line."""
    deprecate_quiesce(monkeypatch)
    orchestrator = ResourceOrchestrator()
    register = (orchestrator if way == "orchestrator" else orchestrator.plugin_manager).register

    with pytest.warns(HookDeprecationWarning) as told:
        register(make(), "crates")

    [warning] = told
    assert str(warning.message) == (
        "quiesce(), which plugin 'crates' uses, is deprecated since probate 0.3, and gone in 0.5: "
        "implement appease()"
    )
    assert (warning.filename, warning.lineno) == (
        function.__code__.co_filename,
        function.__code__.co_firstlineno,
    )


@pytest.mark.parametrize(("make", "function"), FORMS)
def test_whoever_takes_a_deprecated_argument_is_told(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], object], function: Any
) -> None:
    """With its name; the function that its author has written is looked at."""
    deprecate_pid(monkeypatch)

    with pytest.warns(HookDeprecationWarning) as told:
        ResourceOrchestrator().register(make(), "crates")

    [warning] = told
    assert str(warning.message) == (
        "`pid` of quiesce(), which plugin 'crates' uses, is deprecated since probate 0.3, and gone "
        "in 0.5: take `process`"
    )
    assert warning.lineno == function.__code__.co_firstlineno


def test_whoever_does_not_use_what_is_deprecated_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither a plugin that has not the hook, nor one that takes the new argument in its place."""

    class Moved(Plain):
        @hookimpl
        def quiesce(self, process: object) -> Iterable[AnyFuture]:
            return ()

    deprecate_pid(monkeypatch)
    # Here warnings are errors.
    orchestrator = ResourceOrchestrator().register(Moved(), "moved").register(Plain(), "plain")
    deprecate_quiesce(monkeypatch)
    ResourceOrchestrator().register(Plain(), "plain")

    assert set(orchestrator) == {"moved", "plain"}


def test_what_is_deprecated_works_and_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where warnings are errors, and when later plugins have all of them sorted anew."""
    deprecate_quiesce(monkeypatch)
    orchestrator, plugin = ResourceOrchestrator(), Asking()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(HookDeprecationWarning, match="plugin 'crates'"):
            orchestrator.register(plugin, "crates")
        orchestrator.register(Plain(), "first").register(Early(), "last")
    plugin.table.add(1, Thing())

    assert set(orchestrator) == {"crates", "first", "last"}
    assert orchestrator.cleanup_process(1).stats.by_type == {"crates": 1}


class Early(Plain):
    """One that is sorted before all others."""

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(-5)


def test_a_hook_of_a_later_core_is_refused_by_name_unless_it_is_said_to_be_optional() -> None:
    """As is an argument; nothing would call it, or pass it."""

    class Later(Plain):
        @hookimpl
        def appease(self, pid: int) -> None: ...

    class Optional(Plain):
        @hookimpl(optionalhook=True)
        def appease(self, pid: int) -> None: ...

    class Reasoned(Plain):
        @hookimpl
        def cleanup(self, pid: int, reason: object) -> CleanupStats:  # type: ignore[override]  # later
            return CleanupStats()

    with pytest.raises(UnknownHookError, match=r"'crates'.*appease"):
        ResourceOrchestrator().register(Later(), "crates")
    with pytest.raises(UnusablePluginError, match=r"'crates'.*'cleanup'.*'reason'"):
        ResourceOrchestrator().register(Reasoned(), "crates")
    assert list(ResourceOrchestrator().register(Optional(), "crates")) == ["crates"]
