"""OwnershipTable from many threads: each resource is released once, or still the caller's."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
from core_threads import at_once, frequent_switches
from plugins_things import InlineThingResource, Thing, managed

from probate import (
    CleanupStats,
    NotOwnedError,
    Outcome,
    OwnershipTable,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from probate import ResourceId

A, B = 1, 2
ROUNDS = 150


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    with frequent_switches():
        yield


def add_many(table: OwnershipTable[Thing], pid: int, things: list[Thing]) -> list[Thing]:
    """Add all; return those that were refused and are still the caller's."""
    refused = []
    for thing in things:
        try:
            table.add(pid, thing, 1)
        except ProcessTerminatedError:
            refused.append(thing)
    return refused


def test_add_against_cleanup() -> None:
    """Without a manager, what a cleanup misses is still owned; nothing is released twice."""
    table: OwnershipTable[Thing] = OwnershipTable("things")
    for _ in range(ROUNDS):
        batches = [[Thing() for _ in range(30)] for _ in range(3)]
        adders = [partial(add_many, table, A, batch) for batch in batches]
        cleaner = partial(table.cleanup, A, Thing.release)
        at_once([*adders, cleaner, cleaner])
        left = {id(thing) for _, thing in table.owned(A)}

        assert all(
            thing.releases == (0 if id(thing) in left else 1)
            for batch in batches
            for thing in batch
        )
        assert table.nbytes(A) == len(left)

        table.cleanup(A, Thing.release)

        assert A not in table
        assert table.nbytes(A) == 0


@pytest.mark.parametrize("limits", [None, ResourceLimits(max_count=10_000)])
def test_add_against_termination(limits: ResourceLimits | None) -> None:
    """A late registration does not leak: the resource is released once, or refused, never both."""
    plugin = InlineThingResource()
    with managed(plugin, limits=limits) as manager:
        for _ in range(ROUNDS):
            pid = manager.create_process("racer").pid
            batches = [[Thing() for _ in range(20)] for _ in range(3)]
            adders = [partial(add_many, plugin.table, pid, batch) for batch in batches]
            *refused, result = at_once([*adders, partial(manager.terminate_process, pid)])
            returned = {id(thing) for some in refused for thing in some}  # type: ignore[attr-defined]  # lists

            assert all(
                thing.releases == (0 if id(thing) in returned else 1)
                for batch in batches
                for thing in batch
            )
            assert result.stats.resources_freed == 60 - len(returned)  # type: ignore[attr-defined]  # a result
            assert pid not in plugin.table


@pytest.mark.parametrize("limits", [None, ResourceLimits(max_count=10_000)])
def test_acquire_against_termination(limits: ResourceLimits | None) -> None:
    """An end during an acquisition: whatever was made is released exactly once."""
    plugin = InlineThingResource()

    def acquire_many(pid: int, made: list[Thing]) -> None:
        def make() -> Thing:
            made.append(Thing())
            return made[-1]

        for _ in range(20):
            plugin.table.acquire(pid, make, Thing.release)

    with managed(plugin, limits=limits) as manager:
        for _ in range(ROUNDS):
            pid = manager.create_process("racer").pid
            made: list[list[Thing]] = [[], [], []]
            acquirers = [partial(acquire_many, pid, batch) for batch in made]
            *outcomes, _ = at_once([*acquirers, partial(manager.terminate_process, pid)])

            assert all(o is None or isinstance(o, ProcessTerminatedError) for o in outcomes)
            assert Counter(thing.releases for batch in made for thing in batch).keys() <= {1}
            assert pid not in plugin.table


def test_release_against_cleanup() -> None:
    """Each resource goes to the releasing caller or to the cleanup, never to both."""
    table: OwnershipTable[Thing] = OwnershipTable("things")
    for _ in range(ROUNDS):
        ids = [table.add(A, Thing(), 1) for _ in range(60)]
        # The cleanup comes from the newest end, the caller from the oldest: they meet.
        releaser = partial(lambda ids: [table.release(A, each) for each in ids], ids)
        given, stats = at_once([releaser, partial(table.cleanup, A, Thing.release)])

        assert isinstance(stats, CleanupStats)
        assert isinstance(given, list)
        assert sum(thing is not None for thing in given) + stats.resources_freed == 60
        assert all(thing.releases == 0 for thing in given if thing is not None)
        assert table._by_owner._by_pid == {}


def test_transfer_against_cleanup_of_both_ends() -> None:
    """A transferred resource is released by one of the two owners, and only once."""
    table: OwnershipTable[Thing] = OwnershipTable("things")

    def transfer_all(ids: list[ResourceId]) -> None:
        for each in ids:
            # Released by a cleanup by now, perhaps.
            with contextlib.suppress(NotOwnedError):
                table.transfer(A, each, B)

    for _ in range(ROUNDS):
        things = [Thing() for _ in range(40)]
        ids = [table.add(A, thing, 1) for thing in things]
        cleaners = [partial(table.cleanup, pid, Thing.release) for pid in (A, B)]
        outcomes = at_once([partial(transfer_all, ids), *cleaners])
        for pid in (A, B):
            table.cleanup(pid, Thing.release)

        assert not [o for o in outcomes if isinstance(o, BaseException)]
        assert [thing.releases for thing in things] == [1] * 40
        assert [table.nbytes(A), table.nbytes(B)] == [0, 0]
        assert table._by_owner._by_pid == {}


def test_transfer_against_termination_of_both_ends() -> None:
    """A refused transfer leaves the resource with an owner whose termination releases it."""
    plugin = InlineThingResource()

    def transfer_all(ids: list[ResourceId], pid: int, to: int) -> None:
        for each in ids:
            plugin.table.transfer(pid, each, to)

    with managed(plugin) as manager:
        for _ in range(ROUNDS):
            pid, to = (manager.create_process(name).pid for name in "ab")
            things = [Thing() for _ in range(30)]
            ids = [plugin.table.add(pid, thing) for thing in things]
            enders = [partial(manager.terminate_process, each) for each in (pid, to)]
            at_once([partial(transfer_all, ids, pid, to), *enders])

            assert [thing.releases for thing in things] == [1] * 30
            assert plugin.table.pids() == []


def test_two_transfers_in_opposite_directions_do_not_deadlock() -> None:
    """A gives to B while B gives to A; all arrives."""
    table: OwnershipTable[Thing] = OwnershipTable("things")

    def send(ids: list[ResourceId], pid: int, to: int) -> None:
        for each in ids:
            table.transfer(pid, each, to)

    for _ in range(ROUNDS):
        of_a = [table.add(A, Thing(), 2) for _ in range(40)]
        of_b = [table.add(B, Thing(), 3) for _ in range(40)]
        outcomes = at_once([partial(send, of_a, A, B), partial(send, of_b, B, A)])

        assert outcomes == [None, None]
        assert {each for each, _ in table.owned(A)} == set(of_b)
        assert {each for each, _ in table.owned(B)} == set(of_a)
        assert (table.nbytes(A), table.nbytes(B)) == (120, 80)

        for pid in (A, B):
            table.cleanup(pid, Thing.release)


def test_two_cleanups_at_once_lose_nothing_that_is_busy() -> None:
    """The busy ones are tried by either, stay owned, and keep their bytes."""
    table: OwnershipTable[Thing] = OwnershipTable("things")
    for _ in range(ROUNDS):
        things = [Thing() for _ in range(20)]
        stuck = [Thing("stuck", lambda: Outcome.BUSY) for _ in range(5)]
        for thing in [*things, *stuck]:
            table.add(A, thing, 1)
        at_once([partial(table.cleanup, A, Thing.release)] * 3)

        assert [thing.releases for thing in things] == [1] * 20
        assert {id(thing) for _, thing in table.owned(A)} == {id(thing) for thing in stuck}
        assert (table.count(A), table.nbytes(A)) == (5, 5)

        table.cleanup(A, lambda _: None)


def test_of_all_who_gave_their_only_thing_back_one_is_remembered() -> None:
    """Eight threads, each with owners of its own, who come, acquire, give back and are gone."""
    table: OwnershipTable[Thing] = OwnershipTable("things")

    def come_and_go(first: int) -> None:
        for pid in range(first, first + 150):
            table.release(pid, table.add(pid, Thing()))

    for round_number in range(ROUNDS):
        at_once([partial(come_and_go, 1 + 1000 * each) for each in range(8)])

        assert len(table._by_owner._by_pid) <= 1, f"in round {round_number}"
        assert table.pids() == []


def churn(table: OwnershipTable[Thing], pid: int, limit: int, nbytes: int) -> int:
    """Add and release many times; return how often the table showed more than the limit."""
    excess = 0
    for _ in range(150):
        try:
            resource_id = table.add(pid, Thing(), nbytes)
        except ResourceLimitExceeded:
            continue
        excess += table.count(pid) > limit
        table.release(pid, resource_id)
    return excess


def test_a_limit_is_never_exceeded_by_concurrent_acquisitions() -> None:
    """Eight threads and room for three: at no moment are there four."""
    plugin = InlineThingResource()
    with managed(plugin, limits=ResourceLimits(max_count=3, max_bytes=300)) as manager:
        pid = manager.create_process("crowded").pid
        outcomes = at_once([partial(churn, plugin.table, pid, 3, 100)] * 8)

        assert outcomes == [0] * 8
        assert plugin.table._by_owner._by_pid in ({}, {pid: {}})


def test_a_limit_leaves_all_of_its_room_to_concurrent_acquisitions() -> None:
    """Eight threads and room for eight: none is refused, since nothing is counted twice."""
    plugin = InlineThingResource()
    with managed(plugin, limits=ResourceLimits(max_count=8, max_bytes=800)) as manager:
        for _ in range(2 * ROUNDS):
            pid = manager.create_process("full house").pid
            adders: list[Callable[[], object]] = [
                partial(plugin.table.add, pid, Thing(), 100) for _ in range(8)
            ]
            outcomes = at_once(adders)

            assert [o for o in outcomes if isinstance(o, Exception)] == []

            manager.terminate_process(pid)


@pytest.mark.parametrize("nbytes", [0, 1])
@pytest.mark.parametrize("ender", ["release", "cleanup"])
def test_the_last_to_go_does_not_take_the_next_to_come_along(ender: str, nbytes: int) -> None:
    """An owner gives back its last resource while it acquires another: that one is not lost."""

    def come_and_go(table: OwnershipTable[Thing], made: list[Thing]) -> None:
        for _ in range(60):
            made.append(thing := Thing())
            resource_id = table.add(A, thing, nbytes)
            if ender == "cleanup":
                table.cleanup(A, Thing.release)
            elif table.release(A, resource_id) is not None:
                thing.release()

    def come(table: OwnershipTable[Thing], made: list[Thing]) -> None:
        for _ in range(60):
            made.append(thing := Thing())
            table.add(A, thing, nbytes)

    for _ in range(ROUNDS):
        table: OwnershipTable[Thing] = OwnershipTable("things")
        made: list[Thing] = []
        at_once([partial(come_and_go, table, made)] * 2 + [partial(come, table, made)])
        left = {id(thing) for _, thing in table.owned(A)}
        lost = [t for t in made if t.releases != (0 if id(t) in left else 1)]

        assert lost == []
        assert (A in table) == bool(left)
        assert table.nbytes(A) == nbytes * len(left)


def test_a_number_that_the_kernel_gives_out_anew_is_its_new_owners() -> None:
    """Between a close and the note of it others may open the very number: nobody is refused."""
    table = OwnershipTable("descriptors", os.close, identity=lambda fd: fd)

    def open_and_close(pid: int) -> None:
        for _ in range(500):
            table.acquire(pid, lambda: os.open("/", os.O_RDONLY))
            assert table.cleanup(pid).resources_freed == 1

    assert at_once([partial(open_and_close, pid) for pid in (1, 2, 3, 4)]) == [None] * 4
    assert table._index.ids == {}
