"""Lessons of others that are about the whole, each a claim that holds here."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest
from distributions import PLUGIN, install
from plugins_things import Thing, ThingResource, managed, orchestrate

from probate import NotOwnedError, OwnershipTable, ProcessManager, ResourceOrchestrator
from probate.hookspecs import ENTRY_POINT_GROUP

if TYPE_CHECKING:
    from pathlib import Path


class Untouchable:
    """Somebody else's resource: whoever looks at it fails."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __hash__(self) -> int:
        raise AssertionError("hashed")

    def __repr__(self) -> str:
        raise AssertionError("described")


def test_others_resources_are_never_looked_at() -> None:
    """has_resources and cleanup scanned every entry of every process: O(1), and O(own), here."""
    table: OwnershipTable[object] = OwnershipTable("things")
    for pid in range(100):
        table.add(pid, Untouchable())
    own = Thing()
    resource_id = table.add(1000, own)

    assert 1000 in table
    assert 2000 not in table
    assert table.usage(1000).count == 1
    assert table.get(1000, resource_id) is own
    assert table.cleanup(1000, lambda thing: None).resources_freed == 1
    assert len(table.pids()) == 100


def test_one_table_is_the_one_truth() -> None:
    """has_resources looked at messages only, and a second counter drifted: one table, one truth."""
    plugin = ThingResource()
    orchestrator = orchestrate(plugin)
    ids = [plugin.table.add(7, Thing(str(number)), nbytes=number) for number in range(5)]
    for resource_id in ids:
        counted = orchestrator.usage(7)["things"]

        assert (counted.count, counted.nbytes) == (plugin.table.count(7), plugin.table.nbytes(7))
        assert len(counted.resources) == counted.count

        plugin.table.release(7, resource_id)

    assert not orchestrator.has_resources(7)
    assert orchestrator.usage(7) == {}


def test_nothing_is_released_by_an_untracked_id() -> None:
    """bind/connect accepted untracked ids: an id that was never issued is refused."""
    table: OwnershipTable[Thing] = OwnershipTable("things")
    issued = table.add(7, Thing())

    with pytest.raises(NotOwnedError, match="nobody here does"):
        table.release(7, type(issued)(issued + 1_000_000))

    assert table.count(7) == 1


def test_a_release_is_acknowledged_once_and_never_a_leak_again() -> None:
    """cpython#140485: false "leaked" warnings, KeyError: keyed by (owner, id), idempotent."""
    plugin = ThingResource()
    with managed(plugin) as manager:
        with manager.process("tidy") as process:
            resource_id = plugin.table.add(process.pid, thing := Thing())

            assert plugin.table.release(process.pid, resource_id) is thing
            assert plugin.table.release(process.pid, resource_id) is None

        assert process.result is not None
        assert process.result.leaks == ()


def test_the_manager_in_use_is_the_one_that_is_cleaned() -> None:
    """The manager that was cleaned was another instance: one a kind, through the orchestrator."""
    orchestrators = [ResourceOrchestrator().discover(only=["sockets"]) for _ in range(2)]
    managers = [
        ProcessManager.builder().with_resource_orchestrator(each).build() for each in orchestrators
    ]
    first, second = (manager.create_process("same pid") for manager in managers)
    made = [
        orchestrator["sockets"].manager.bind_udp(process.pid, ("127.0.0.1", 0))
        for orchestrator, process in zip(orchestrators, (first, second), strict=True)
    ]

    assert first.pid == second.pid
    assert orchestrators[0]["sockets"] is orchestrators[0]["sockets"]

    assert first.terminate().stats.resources_freed == 1
    assert [isinstance(each, socket.socket) and each.fileno() for each in made] != [-1, -1]
    assert made[1].fileno() != -1
    assert second.terminate().stats.resources_freed == 1


@pytest.mark.parametrize("answers", [[True, False], [False, True], [False, False]])
def test_false_is_an_answer(answers: list[bool]) -> None:
    """None vanishes from a pluggy call and False stays: has_resources is never firstresult."""
    plugins = [ThingResource(kind, priority) for priority, kind in enumerate("ab")]
    orchestrator = orchestrate(*plugins)
    for plugin, owns in zip(plugins, answers, strict=True):
        if owns:
            plugin.give(7)

    assert orchestrator.plugin_manager.hook.has_resources(pid=7) == answers[::-1]
    assert orchestrator.has_resources(7) is any(answers)
    assert (
        list(orchestrator.usage(7))
        == [plugin.kind for plugin, owns in zip(plugins, answers, strict=True) if owns][::-1]
    )


def test_loading_goes_on_where_pluggys_own_would_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """load_setuptools_entrypoints aborts midway at the first bad plugin: ours goes on."""
    monkeypatch.syspath_prepend(str(tmp_path))
    install(
        tmp_path,
        "aaa-bad",
        module="lesson_bad",
        source="raise RuntimeError('bad')",
        entry_points={"aaa": "lesson_bad:Resource"},
    )
    install(
        tmp_path,
        "zzz-good",
        module="lesson_good",
        source=PLUGIN.format(kind="zzz", priority=1),
        entry_points={"zzz": "lesson_good:Resource"},
    )
    bare = ResourceOrchestrator()
    with pytest.raises(RuntimeError, match="bad"):
        bare.plugin_manager.load_setuptools_entrypoints(ENTRY_POINT_GROUP)

    orchestrator = ResourceOrchestrator().discover()
    for name in ("lesson_bad", "lesson_good"):
        sys.modules.pop(name, None)

    assert "zzz" in orchestrator
    assert {record.kind: record.status for record in orchestrator.records}["aaa"] == "failed"
