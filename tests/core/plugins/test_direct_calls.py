"""Where nobody observes, plugins are called directly; where somebody does, through pluggy only."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pluggy
import pytest
from plugins_things import ThingResource

from probate import (
    CleanupResult,
    CleanupStats,
    Ordering,
    OwnershipTable,
    ProcessManager,
    ResourceOrchestrator,
    hookimpl,
    runs_inline,
)

if TYPE_CHECKING:
    from collections.abc import Generator

PID = 1


class Witness:
    """Counts the calls that it wraps."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    @hookimpl(wrapper=True)
    def has_resources(self, pid: int) -> Generator[None, Any, Any]:
        self.calls.append("has_resources")
        return (yield)

    @hookimpl(wrapper=True)
    def quiesce(self, pid: int) -> Generator[None, Any, Any]:
        self.calls.append("quiesce")
        return (yield)

    @hookimpl(wrapper=True)
    def cleanup(self, pid: int) -> Generator[None, Any, Any]:
        self.calls.append("cleanup")
        return (yield)


@pytest.mark.parametrize("directly", [False, True])
def test_an_observer_sees_all_from_when_it_comes_until_it_goes(directly: bool) -> None:
    """Also one that pluggy is given without the orchestrator."""
    plugin, witness = ThingResource(), Witness()
    orchestrator = ResourceOrchestrator().register(plugin)

    def end() -> CleanupResult:
        plugin.give(PID)
        return orchestrator.cleanup_process(PID)

    assert end().stats.resources_freed == 1
    assert witness.calls == []
    if directly:
        orchestrator.plugin_manager.register(witness)
    else:
        orchestrator.register(witness)
    assert end().stats.resources_freed == 1
    assert witness.calls == ["has_resources", "quiesce", "cleanup", "has_resources"]
    witness.calls.clear()
    orchestrator.plugin_manager.unregister(witness)
    assert end().stats.resources_freed == 1
    assert witness.calls == []


def test_undoing_one_of_two_monitors_leaves_the_other() -> None:
    """Also if that one is undone twice."""
    orchestrator = ResourceOrchestrator().register(plugin := ThingResource())
    seen: dict[str, list[str]] = {"a": [], "b": []}

    def monitor(name: str) -> Any:
        def before(hook: str, impls: object, kwargs: object) -> None:
            seen[name].append(hook)

        return orchestrator.plugin_manager.add_hookcall_monitoring(before, lambda *_: None)

    monitor("a")
    undo = monitor("b")
    undo()
    undo()
    plugin.give(PID)

    assert orchestrator.cleanup_process(PID).stats.resources_freed == 1
    assert seen["a"] == ["has_resources", "quiesce", "cleanup", "has_resources"]
    assert seen["b"] == []


class Odd:
    """A plugin whose hooks take less than they may, and that wraps one of its own."""

    def __init__(self) -> None:
        self.table: OwnershipTable[object] = OwnershipTable("odd")
        self.wrapped = 0

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=1)

    @hookimpl
    def has_resources(self) -> bool:
        return PID in self.table

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        return self.table.cleanup(pid, lambda _: None)

    @hookimpl(wrapper=True, specname="cleanup")
    def around(self, pid: int) -> Generator[None, Any, Any]:
        self.wrapped += 1
        return (yield)


def test_a_plugin_that_pluggy_alone_can_call_is_called_by_pluggy() -> None:
    """Its wrapper is called, and a hook is not given what it does not take."""
    orchestrator = ResourceOrchestrator().register(odd := Odd(), "odd")
    odd.table.add(PID, object())

    assert orchestrator.cleanup_process(PID).stats.by_type == {"odd": 1}
    assert odd.wrapped == 1


class Picky(ThingResource):
    """Inline for some processes."""

    def __init__(self) -> None:
        super().__init__("picky")
        self.threads: list[str] = []
        self.asked: list[int] = []

    def may_block(self, pid: int) -> bool:
        self.asked.append(pid)
        if pid == 3:
            raise ValueError("cannot tell")
        return pid == PID

    @hookimpl
    @runs_inline(unless=may_block)
    def cleanup(self, pid: int) -> CleanupStats:
        self.threads.append(threading.current_thread().name)
        return self.table.cleanup(pid, lambda thing: thing.release())


@pytest.mark.parametrize(
    ("pid", "is_inline"), [(PID, False), (2, True), (3, False)], ids=["may", "cannot", "unknown"]
)
def test_a_hook_is_watched_where_it_says_that_it_may_block(pid: int, is_inline: bool) -> None:
    """Or where it fails to say."""
    plugin = Picky()
    orchestrator = ResourceOrchestrator().register(plugin)
    plugin.give(pid)

    assert orchestrator.cleanup_process(pid).is_success
    assert plugin.asked == [pid]
    assert [name == "MainThread" for name in plugin.threads] == [is_inline]


def test_a_manager_is_one_of_pluggys() -> None:
    """Everything that is done with one can be done with it."""
    with ProcessManager.builder().with_resource_orchestrator(ResourceOrchestrator()).build() as m:
        assert isinstance(m.orchestrator.plugin_manager, pluggy.PluginManager)
