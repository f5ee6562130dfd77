"""Registering plugins: what is refused, with which message, and that nothing of it stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from core_threads import at_once, frequent_switches
from plugins_things import ThingResource, orchestrate, raising

from probate import (
    CleanupStats,
    DuplicateKindError,
    HookOrderError,
    InvalidOrderingError,
    MissingHookError,
    Ordering,
    OrderingCycleError,
    OwnershipTable,
    PluginError,
    ResourceKind,
    ResourceOrchestrator,
    UnknownHookError,
    UnknownKindError,
    UnusablePluginError,
    hookimpl,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Bare:
    """No hooks at all."""


class Unmarked:
    """All hooks are there; one has no mark."""

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(1)

    def has_resources(self, pid: int) -> bool:
        return False

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        return CleanupStats()


class Whole(Unmarked):
    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return False


class Misspelt(Whole):
    @hookimpl
    def quiese(self, pid: int) -> list[object]:
        return []


class Odd(Whole):
    @hookimpl
    def make_coffee(self) -> None: ...


class WrongArgument(Whole):
    @hookimpl
    def cleanup(self, process: int) -> CleanupStats:
        return CleanupStats()


class First(Whole):
    @hookimpl(tryfirst=True)
    def cleanup(self, pid: int) -> CleanupStats:
        return CleanupStats()


class Last(Whole):
    @hookimpl(trylast=True)
    def cleanup(self, pid: int) -> CleanupStats:
        return CleanupStats()


class Placed(Whole):
    """Its `ordering` calls what it was made with."""

    def __init__(self, place: Callable[[], Any]) -> None:
        self.place = place

    @hookimpl
    def ordering(self) -> Ordering:
        found: Ordering = self.place()
        return found


async def _coroutine() -> Ordering:
    return Ordering(1)


@dataclass
class Unhashable(Whole):
    """A dataclass compares by value and has no hash."""

    names: list[str] = field(default_factory=list)


@pytest.mark.parametrize(
    ("plugin", "error", "words"),
    [
        (Bare(), MissingHookError, r"ordering\(\), has_resources\(\), cleanup\(\)"),
        (Unmarked(), MissingHookError, r"has_resources\(\) is there, but has no mark"),
        (Misspelt(), UnknownHookError, "'bad'.*'quiese'.*did you mean 'quiesce'"),
        (Odd(), UnknownHookError, r"make_coffee.*see probate\.hookspecs"),
        (WrongArgument(), PluginError, "(?s)bad.*process"),
        (First(), HookOrderError, r"'bad' marks cleanup\(\) tryfirst"),
        (Last(), HookOrderError, "use its priority"),
        (Placed(raising(OSError("no"))), InvalidOrderingError, "raised OSError: no"),
        (Placed(lambda: None), InvalidOrderingError, "got None"),
        (Placed(lambda: 7), InvalidOrderingError, "got 7"),
        (Placed(lambda: Ordering), InvalidOrderingError, "must return probate.Ordering"),
        (Placed(lambda: Ordering(1, before=("bad",))), OrderingCycleError, "bad before bad"),
        (Placed(lambda: Ordering(1, ("b",), ("b",))), OrderingCycleError, "form a cycle"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, (str, type)) else "",
)
def test_what_cannot_be_used_is_refused_and_leaves_nothing(
    plugin: object, error: type[PluginError], words: str
) -> None:
    """The error names plugin and hook; the others are registered as before, with pluggy too."""
    plugins = [ThingResource(kind, priority) for priority, kind in enumerate("abc")]
    orchestrator = orchestrate(*plugins)

    with pytest.raises(error, match=words):
        orchestrator.register(plugin, "bad")

    assert list(orchestrator) == ["c", "b", "a"]
    assert [name for name, _ in orchestrator.plugin_manager.list_name_plugin()] == ["a", "b", "c"]
    assert "bad" not in orchestrator

    for one in plugins:
        one.give(7)

    assert orchestrator.cleanup_process(7).stats.by_type == {"a": 1, "b": 1, "c": 1}
    assert list(orchestrator.register(ThingResource("bad", 9))) == ["bad", "c", "b", "a"]


def test_a_coroutine_is_no_ordering() -> None:
    """The error for an `async def ordering` says that it is one."""
    coroutine = _coroutine()
    with pytest.raises(InvalidOrderingError, match="got a coroutine"):
        ResourceOrchestrator().register(Placed(lambda: coroutine))
    coroutine.close()


def test_a_kind_is_served_by_one_plugin() -> None:
    """The second is refused and the first goes on."""
    first = ThingResource("a")
    orchestrator = orchestrate(first)

    with pytest.raises(DuplicateKindError, match="'a' is registered already"):
        orchestrator.register(ThingResource("a"))

    assert orchestrator["a"] is first
    assert len(orchestrator) == 1


def test_a_plugin_serves_one_kind() -> None:
    """The same object under a second name is refused, and nothing of it stays."""
    plugin = ThingResource("a")
    orchestrator = orchestrate(plugin)

    with pytest.raises(PluginError):
        orchestrator.register(plugin, "b")

    assert list(orchestrator) == ["a"]

    plugin.give(7)

    assert orchestrator.cleanup_process(7).stats.by_type == {"a": 1}


def test_a_name_that_pluggy_knows_already_is_refused() -> None:
    """An observer took the name: an error, and no half-registered kind."""
    orchestrator = ResourceOrchestrator()
    orchestrator.plugin_manager.register(Audit(), "a")

    with pytest.raises(PluginError):
        orchestrator.register(ThingResource("a"))

    assert list(orchestrator) == []


def test_a_plugin_without_a_hash_is_refused_at_once() -> None:
    """Such as a dataclass, which pluggy cannot leave out of a call: refused at registration."""
    plugin = ThingResource("a")
    orchestrator = orchestrate(plugin)

    with pytest.raises(PluginError, match="hash"):
        orchestrator.register(Unhashable(), "b")

    plugin.give(7)

    assert orchestrator.cleanup_process(7).stats.by_type == {"a": 1}
    assert list(orchestrator) == ["a"]


def test_an_unknown_kind_is_a_key_error_with_a_message() -> None:
    """It lists the kinds there are, and what may have to be installed."""
    with pytest.raises(UnknownKindError, match=r"registered: a .is probate-socks installed") as e:
        orchestrate(ThingResource("a"))["socks"]

    assert isinstance(e.value, KeyError)


def test_the_orchestrator_is_a_mapping_in_cleanup_order() -> None:
    """`in`, len, list, registered_types and resource_count agree; validate_coverage warns."""
    orchestrator = orchestrate(ThingResource("low", 1), ThingResource("high", 2))

    assert list(orchestrator) == orchestrator.registered_types() == ["high", "low"]
    assert (len(orchestrator), orchestrator.resource_count()) == (2, 2)
    assert "low" in orchestrator
    assert "7" not in orchestrator

    with pytest.warns(UserWarning, match="'ghost' has no plugin: its resources would leak"):
        missing = orchestrator.validate_coverage(["low", "ghost"])

    assert missing == ["ghost"]


def test_a_late_plugin_is_sorted_in() -> None:
    """Registered after a termination, it takes its place and sees the next one."""
    log: list[str] = []
    plugins = {kind: ThingResource(kind, place, log=log) for place, kind in enumerate("abc")}
    orchestrator = orchestrate(plugins["a"], plugins["c"])
    orchestrator.cleanup_process(1)
    orchestrator.register(plugins["b"])
    for plugin in plugins.values():
        plugin.give(1)
    orchestrator.cleanup_process(1)

    assert [line for line in log if line.startswith("cleanup")] == [
        "cleanup c", "cleanup b", "cleanup a",
    ]  # fmt: skip


def test_a_plugin_registered_in_mid_cleanup_is_accounted_as_itself() -> None:
    """A hook registers another kind: each kind's resources are counted as its own."""
    late = ThingResource("late", 5)
    high, low = ThingResource("high", 9), ThingResource("low", 1)
    orchestrator = orchestrate(high, low)
    for plugin in (high, low, late):
        plugin.give(7)

    def register_and_clean() -> CleanupStats:
        if "late" not in orchestrator:
            orchestrator.register(late)
        return high.table.cleanup(7, lambda thing: thing.release())

    high.faults["cleanup"] = register_and_clean
    result = orchestrator.cleanup_process(7)

    assert result.is_success
    assert result.stats.by_type == {"high": 1, "late": 1, "low": 1}


def test_registering_while_terminations_run_loses_nothing() -> None:
    """Kinds come in from one thread while others terminate: every resource is freed, once."""
    plugins = [ThingResource(f"kind{number}", 2 * number) for number in range(4)]
    late = [ThingResource(f"late{number}", 2 * number % 9 + 1) for number in range(40)]
    orchestrator = orchestrate(*plugins)

    def register() -> None:
        for plugin in late:
            orchestrator.register(plugin)

    def terminate(base: int) -> None:
        for pid in range(base, base + 60):
            things = [plugin.give(pid) for plugin in plugins]
            result = orchestrator.cleanup_process(pid, grace=0, deadline=None)

            assert [thing.releases for thing in things] == [1, 1, 1, 1], result
            assert result.stats.by_type == {plugin.kind: 1 for plugin in plugins}
            assert result.is_success

    with frequent_switches():
        outcomes = at_once([register, *(partial(terminate, base) for base in (1000, 2000, 3000))])

    assert outcomes == [None] * 4
    assert len(orchestrator) == 44


class Audit:
    """An observer: wraps, and serves no kind."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    @hookimpl(wrapper=True)
    def cleanup(self, pid: int) -> Generator[None, Any, Any]:
        self.seen.append(pid)
        return (yield)


@pytest.mark.parametrize("way", ["orchestrator", "pluggy"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_observers_are_registered_in_either_way(way: str, when: str) -> None:
    """orchestrator.register and plugin_manager.register, before or after the kinds."""
    plugin, audit, orchestrator = ThingResource("a"), Audit(), ResourceOrchestrator()
    if when == "after":
        orchestrator.register(plugin)
        orchestrator.cleanup_process(1)
    if way == "orchestrator":
        orchestrator.register(audit)
    else:
        orchestrator.plugin_manager.register(audit)
    if when == "before":
        orchestrator.register(plugin)
    plugin.give(1)
    orchestrator.cleanup_process(1)

    assert audit.seen == [1]
    assert list(orchestrator) == ["a"]


def test_a_misspelt_hook_of_an_observer_given_to_pluggy_is_found() -> None:
    """check_pending names plugin, hook and nearest spec; asking for the kinds does so too."""
    orchestrator = orchestrate(ThingResource("a"))
    orchestrator.plugin_manager.register(Misspelt(), "observer")

    for ask in (orchestrator.check_pending, orchestrator.registered_types):
        with pytest.raises(UnknownHookError, match=r"'observer'.*'quiese'.*'quiesce'"):
            ask()


def test_anothers_misspelling_does_not_half_register() -> None:
    """An error for an observer's misspelling; the plugin being registered is then left out."""
    orchestrator = orchestrate(ThingResource("a"))
    orchestrator.plugin_manager.register(Misspelt(), "observer")

    with pytest.raises(UnknownHookError, match="'observer'"):
        orchestrator.register(ThingResource("b"))

    assert list(orchestrator) == ["a"]


def test_a_kind_that_was_not_initialised_is_told_so() -> None:
    """Not by a name that it has never heard of, from within."""

    class Leases(ResourceKind):
        def __init__(self) -> None:
            self.table: OwnershipTable[object] = OwnershipTable("leases", print)

    with pytest.raises(UnusablePluginError, match=r"has to call super\(\).__init__"):
        ResourceOrchestrator().register(Leases())


def test_a_coroutine_function_is_no_hook() -> None:
    """Nobody would await it: refused at registration, not at the first cleanup."""

    class Async(ThingResource):
        @hookimpl
        async def cleanup(self, pid: int) -> CleanupStats:  # type: ignore[override]  # the point
            return CleanupStats()

    orchestrator = ResourceOrchestrator()

    with pytest.raises(UnusablePluginError, match=r"cleanup\(\) is a coroutine function"):
        orchestrator.register(Async("a"))

    assert list(orchestrator) == []
