"""How tables learn which pids may own: they are found in the plugin, without its author's help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from plugins_things import Thing

from probate import (
    CleanupStats,
    Ordering,
    OwnershipTable,
    ProcessManager,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
    ResourceOrchestrator,
    UnusablePluginError,
    UnwiredKindWarning,
    hookimpl,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Table = OwnershipTable[Any]


class Hooks:
    """The three required hooks, over whatever `all_tables` gives."""

    def all_tables(self) -> list[Table]:
        raise NotImplementedError

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(1)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return any(pid in table for table in self.all_tables())

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        parts = (table.cleanup(pid, Thing.release) for table in self.all_tables())
        return CleanupStats.merged(parts)


class Direct(Hooks):
    def __init__(self) -> None:
        self.table: Table = OwnershipTable("things")

    def all_tables(self) -> list[Table]:
        return [self.table]


class Manager:
    def __init__(self) -> None:
        self.things: Table = OwnershipTable("things")


class ThroughManager(Hooks):
    def __init__(self) -> None:
        self.manager = Manager()

    def all_tables(self) -> list[Table]:
        return [self.manager.things]


class OnTheClass(Hooks):
    table: Table

    def __init__(self) -> None:
        # Anew for each, or two orchestrators would share it, which is refused.
        type(self).table = OwnershipTable("things")

    def all_tables(self) -> list[Table]:
        return [self.table]


SHAPES = [Direct, ThroughManager, OnTheClass]


@pytest.mark.parametrize("make", SHAPES)
def test_every_table_of_a_plugin_is_found(make: Callable[[], Hooks]) -> None:
    """Wherever it is, it refuses ended pids, keeps to the limits, and describes its usage."""
    plugin = make()
    orchestrator = ResourceOrchestrator().register(plugin, "things")
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_grace(0).with_limits(ResourceLimits(max_count=1)).build() as manager:
        pid = manager.create_process("p").pid
        for table in plugin.all_tables():
            table.add(pid, Thing())
            with pytest.raises(ResourceLimitExceeded):
                table.add(pid, Thing())

        assert orchestrator.usage(pid)["things"].count == len(plugin.all_tables())

        manager.terminate_process(pid)
        for table in plugin.all_tables():
            with pytest.raises(ProcessTerminatedError):
                table.add(pid, Thing())


class Hidden(Hooks):
    def __init__(self) -> None:
        self.tables: list[Table] = [OwnershipTable("things")]

    def all_tables(self) -> list[Table]:
        return self.tables


def test_a_table_that_is_not_found_is_said_at_registration() -> None:
    """An unwired table would accept ended pids silently, so a warning comes at registration."""
    with pytest.warns(UnwiredKindWarning, match="kind 'things' keeps no OwnershipTable") as caught:
        ResourceOrchestrator().register(Hidden(), "things")

    assert caught[0].filename == __file__


def test_one_plugin_object_serves_one_orchestrator() -> None:
    """Two managers both issue pid 1: ending one's process would release the other's thing."""
    plugin = Direct()
    ResourceOrchestrator().register(plugin, "things")
    other = ResourceOrchestrator()

    with pytest.raises(UnusablePluginError, match="serves another orchestrator"):
        other.register(plugin, "things")
    assert list(other) == []


def test_the_kind_is_the_name_or_the_attribute_or_the_tables() -> None:
    """In this order; and the tables take the name that the plugin was registered under."""
    named = Direct()
    attributed = type("Attributed", (Direct,), {"kind": "attribute"})()

    assert list(ResourceOrchestrator().register(named, "name")) == ["name"]
    assert named.table.kind == "name"
    assert list(ResourceOrchestrator().register(attributed)) == ["attribute"]
    assert list(ResourceOrchestrator().register(Direct())) == ["things"]


def test_a_plugin_that_knows_another_does_not_take_its_tables() -> None:
    """Two kinds of one package, the one using the other: each keeps its own table."""
    lower = Direct()
    upper = Direct()
    upper.lower = lower  # type: ignore[attr-defined]  # as a plugin may
    orchestrator = ResourceOrchestrator().register(lower, "lower").register(upper, "upper")
    lower.table.add(7, Thing())

    assert (lower.table.kind, upper.table.kind) == ("lower", "upper")
    assert orchestrator.usage(7)["lower"].resources[0].description == "thing"
    assert list(orchestrator.usage(7)) == ["lower"]


def test_a_plugin_that_knows_the_orchestrator_does_not_take_its_tables() -> None:
    """An orchestrator is a mapping, and no collection of one plugin's tables."""
    first, second = Direct(), Direct()
    orchestrator = ResourceOrchestrator().register(first, "first")
    second.orchestrator = orchestrator  # type: ignore[attr-defined]  # as a plugin may
    orchestrator.register(second, "second")

    assert (first.table.kind, second.table.kind) == ("first", "second")
