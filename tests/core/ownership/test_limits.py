"""ResourceLimits: how much of each kind one process may own, refused before anything is made."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from distributions import PLUGIN, install
from plugins_things import Thing, ThingResource, managed, orchestrate
from pydantic import ValidationError

from probate import (
    KindLimits,
    ProcessManager,
    ResourceLimitExceeded,
    ResourceLimits,
    ResourceOrchestrator,
    UnknownKindError,
)
from probate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

THREE = ResourceLimits(max_count=3)


def test_the_limit_is_reached_and_not_passed() -> None:
    """Three of three are granted; the fourth is refused, and the error says kind, limit and use."""
    plugin = ThingResource()
    with managed(plugin, limits=THREE) as manager:
        pid = manager.create_process("p").pid
        for _ in range(3):
            plugin.give(pid)

        with pytest.raises(ResourceLimitExceeded) as caught:
            plugin.give(pid)

        error = caught.value

        assert (error.kind, error.pid, error.limit) == ("things", pid, 3)
        assert (error.held, error.requested) == (3, 1)
        assert f"things: process {pid} holds 3 of at most 3 resources" in str(error)
        assert plugin.table.count(pid) == 3


def test_bytes_are_limited_like_counts() -> None:
    """Exactly the limit is granted, one byte more is not; no bytes are always granted."""
    plugin = ThingResource()
    with managed(plugin, limits=ResourceLimits(max_bytes=100)) as manager:
        pid = manager.create_process("p").pid
        plugin.give(pid, nbytes=60)

        with pytest.raises(ResourceLimitExceeded, match="60 of at most 100 bytes and asked for 41"):
            plugin.give(pid, nbytes=41)

        plugin.give(pid, nbytes=40)
        plugin.give(pid, nbytes=0)

        assert plugin.table.nbytes(pid) == 100


def test_refused_before_anything_is_made() -> None:
    """`acquire` does not call `make` when a limit refuses."""
    plugin = ThingResource()
    made: list[Thing] = []

    def make() -> Thing:
        made.append(Thing())
        return made[-1]

    with managed(plugin, limits=ResourceLimits(max_count=1, max_bytes=10)) as manager:
        pid = manager.create_process("p").pid
        with pytest.raises(ResourceLimitExceeded):
            plugin.table.acquire(pid, make, Thing.release, nbytes=11)

        assert made == []

        plugin.table.acquire(pid, make, Thing.release, nbytes=10)
        with pytest.raises(ResourceLimitExceeded):
            plugin.table.acquire(pid, make, Thing.release)

        assert len(made) == 1


def test_an_acquisition_under_way_counts() -> None:
    """While one is being made it is counted; when making fails, it no longer is."""
    plugin = ThingResource()
    with managed(plugin, limits=ResourceLimits(max_count=1)) as manager:
        pid = manager.create_process("p").pid

        def make_another_meanwhile() -> Thing:
            plugin.give(pid)
            return Thing()

        with pytest.raises(ResourceLimitExceeded):
            plugin.table.acquire(pid, make_another_meanwhile, Thing.release)

        assert pid not in plugin.table

        plugin.give(pid)


def test_released_capacity_is_usable_again() -> None:
    """After release, transfer and a failed add there is as much room as before."""
    plugin = ThingResource()
    with managed(plugin, limits=ResourceLimits(max_count=1, max_bytes=10)) as manager:
        pid, other = (manager.create_process(name).pid for name in "ab")
        for _ in range(50):
            first = plugin.table.add(pid, Thing(), 10)
            plugin.table.release(pid, first)
            second = plugin.table.add(pid, Thing(), 10)
            plugin.table.transfer(pid, second, other)
            with pytest.raises(ResourceLimitExceeded):
                plugin.table.add(other, Thing())
            plugin.table.cleanup(other, Thing.release)

        assert plugin.table.add(pid, Thing(), 10)


def test_a_transfer_respects_the_receivers_limit() -> None:
    """Refused, and the giver has it still, in its place."""
    plugin = ThingResource()
    with managed(plugin, limits=ResourceLimits(max_count=2)) as manager:
        pid, other = (manager.create_process(name).pid for name in "ab")
        older = plugin.table.add(pid, Thing(), 4)
        newer = plugin.table.add(pid, Thing(), 4)
        for _ in range(2):
            plugin.give(other)

        with pytest.raises(ResourceLimitExceeded, match=f"process {other}"):
            plugin.table.transfer(pid, older, other)

        assert [each for each, _ in plugin.table.owned(pid)] == [newer, older]
        assert plugin.table.nbytes(pid) == 8
        assert plugin.table.count(other) == 2


def test_what_is_busy_still_counts() -> None:
    """A cleanup that frees nothing makes no room."""
    from probate import Outcome

    plugin = ThingResource()
    with managed(plugin, limits=ResourceLimits(max_count=1)) as manager:
        pid = manager.create_process("p").pid
        thing = plugin.give(pid, "stuck", lambda: Outcome.BUSY)
        plugin.table.cleanup(pid, Thing.release)

        with pytest.raises(ResourceLimitExceeded):
            plugin.give(pid)

        thing.behave = None


def test_a_kinds_own_limits_hold_instead_of_the_general_ones() -> None:
    """by_kind overrides; other kinds keep the general limits, each counted by itself."""
    many, few = ThingResource("many"), ThingResource("few")
    limits = ResourceLimits(max_count=1, by_kind={"many": KindLimits(max_count=3)})
    with managed(many, few, limits=limits) as manager:
        pid = manager.create_process("p").pid
        for _ in range(3):
            many.give(pid)
        few.give(pid)

        for plugin in (many, few):
            with pytest.raises(ResourceLimitExceeded, match=plugin.kind):
                plugin.give(pid)


def test_limits_are_each_process_own() -> None:
    """One process at its limit takes nothing from another; create_process may set others."""
    plugin = ThingResource()
    with managed(plugin, limits=ResourceLimits(max_count=1)) as manager:
        first, second = (manager.create_process(name).pid for name in "ab")
        roomy = manager.create_process("roomy", limits=ResourceLimits(max_count=2)).pid
        for pid in (first, second, roomy, roomy):
            plugin.give(pid)
        for pid in (first, second, roomy):
            with pytest.raises(ResourceLimitExceeded):
                plugin.give(pid)


def test_zero_is_a_limit() -> None:
    """A max_count of 0 grants nothing; None grants everything."""
    plugin = ThingResource()
    with managed(plugin, limits=ResourceLimits(max_count=0)) as manager:
        with pytest.raises(ResourceLimitExceeded, match="0 of at most 0"):
            plugin.give(manager.create_process("none").pid)
        unlimited = manager.create_process("all", limits=ResourceLimits()).pid
        for _ in range(10):
            plugin.give(unlimited)

        assert plugin.table.count(unlimited) == 10


@pytest.mark.parametrize(
    "text",
    [
        '{"max_count": -1}',
        '{"max_bytes": -1}',
        '{"max_count": "many"}',
        '{"max_count": 1.5}',
        '{"max_conut": 1}',
        '{"by_kind": {"sockets": {"max_count": -1}}}',
        '{"by_kind": {"sockets": {"max_conut": 1}}}',
        '{"by_kind": {"sockets": 1}}',
        '{"by_kind": []}',
        "[]",
    ],
)
def test_bad_limits_are_refused(text: str) -> None:
    """Negative, no number, or misspelt: a limit that would silently not hold is an error."""
    with pytest.raises(ValidationError):
        ResourceLimits.model_validate_json(text)


def test_limits_survive_json() -> None:
    """Written and read again they are the same."""
    limits = ResourceLimits(max_count=1, by_kind={"sockets": KindLimits(max_bytes=9)})

    assert ResourceLimits.model_validate_json(limits.model_dump_json()) == limits
    assert limits.of("sockets") == KindLimits(max_bytes=9)
    assert limits.of("files") == KindLimits(max_count=1)


def of_kind(kind: str) -> ResourceLimits:
    return ResourceLimits(by_kind={kind: KindLimits(max_count=1)})


GIVEN: dict[str, Callable[[ProcessManager, ResourceLimits], object]] = {
    "create_process": lambda manager, limits: manager.create_process("p", limits=limits),
    "process": lambda manager, limits: manager.process("p", limits=limits).__enter__(),
    "spawn": lambda manager, limits: manager.spawn(["true"], limits=limits),
}


@pytest.mark.parametrize("way", GIVEN)
def test_limits_of_a_kind_that_there_is_not_are_refused(way: str) -> None:
    """A misspelt kind's limit would silently not hold: the error has all kinds, and the nearest."""
    orchestrator = ResourceOrchestrator().discover(only=["processes", "sockets"])
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_grace(0).build() as manager:
        with pytest.raises(
            UnknownKindError,
            match=r"'sokcets'; registered: processes, sockets .*limits.*did you mean 'sockets'\?",
        ):
            GIVEN[way](manager, of_kind("sokcets"))

        assert manager.list_processes() == []


def test_a_manager_is_not_built_with_limits_of_a_kind_that_there_is_not() -> None:
    """By hand or from settings; the orchestrator is free for another manager."""
    orchestrator = orchestrate(ThingResource())
    for builder in (
        ProcessManager.builder().with_limits(of_kind("thinks")),
        ProcessManager.builder().with_settings(Settings(limits=of_kind("thinks"))),
    ):
        builder.with_resource_orchestrator(orchestrator)
        with pytest.raises(UnknownKindError, match="did you mean 'things'"):
            builder.build()
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    builder.with_limits(of_kind("things")).build().close()


def test_limits_of_a_block_hold_in_it() -> None:
    """`process(..., limits=)` is `create_process(..., limits=)`."""
    plugin = ThingResource()
    with managed(plugin) as manager, manager.process("p", limits=of_kind("things")) as process:
        plugin.give(process.pid)
        with pytest.raises(ResourceLimitExceeded):
            plugin.give(process.pid)
        process.disown(plugin.table.resources(process.pid)[0])


def test_limits_of_a_disabled_kind_are_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known by name, and nothing of it can be acquired; one that has failed says why."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind, source in (("leases", PLUGIN), ("tokens", "raise OSError('no disk')")):
        module = f"limits_{kind}"
        monkeypatch.delitem(sys.modules, module, raising=False)
        install(
            tmp_path,
            kind,
            module=module,
            source=source.format(kind=kind, priority=1),
            entry_points={kind: f"{module}:Resource"},
        )
    orchestrator = ResourceOrchestrator().discover(only=["leases", "tokens"], disable=["leases"])
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_limits(of_kind("leases")).build() as manager:
        assert manager.create_process("p", limits=of_kind("leases")).state == "running"
        with pytest.raises(UnknownKindError, match="tokens is failed: OSError: no disk"):
            manager.create_process("p", limits=of_kind("tokens"))
