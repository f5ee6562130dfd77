"""OwnershipTable: who owns what, and what a cleanup counts."""

from __future__ import annotations

import itertools
import sys

import pytest
from plugins_things import Thing, raising

from probate import (
    AlreadyOwnedError,
    BusyResourceError,
    CleanupStats,
    NotOwnedError,
    Outcome,
    OwnershipTable,
    RefusedResourceError,
    ReleaseError,
    ReleaseTimeoutError,
    ResourceId,
)

A, B, C = 1, 2, 3


@pytest.fixture
def table() -> OwnershipTable[Thing]:
    return OwnershipTable("things")


def test_an_owner_gets_at_what_it_owns(table: OwnershipTable[Thing]) -> None:
    """add, get, find, count, nbytes, pids and `in` all agree."""
    first, second = Thing("first"), Thing("second")
    first_id = table.add(A, first, 10)
    second_id = table.add(A, second, 5)
    table.add(B, Thing("other"))

    assert table.get(A, first_id) is first
    assert table.find(A, second) == second_id
    assert (table.count(A), table.nbytes(A)) == (2, 15)
    assert sorted(table.pids()) == [A, B]
    assert A in table
    assert C not in table
    assert table.owned(A) == [(second_id, second), (first_id, first)]


def test_usage_describes_each_resource(table: OwnershipTable[Thing]) -> None:
    """usage: how many, how many bytes, and each one's description, oldest first."""
    table.add(A, Thing("one"), 3)
    table.add(A, Thing("two"), 4)
    usage = table.usage(A)

    assert (usage.kind, usage.count, usage.nbytes) == ("things", 2, 7)
    assert [(info.description, info.nbytes) for info in usage.resources] == [("one", 3), ("two", 4)]
    assert table.usage(B).count == 0


def test_ids_are_never_reused(table: OwnershipTable[Thing]) -> None:
    """An id names one resource for good, over all owners and tables, whatever was released."""
    other: OwnershipTable[Thing] = OwnershipTable("others")
    ids = []
    for _ in range(100):
        ids.append(table.add(A, Thing()))
        ids.append(other.add(A, Thing()))
        table.release(A, ids[-2])

    assert len(set(ids)) == len(ids)
    assert sorted(ids) == ids


def test_release_is_owner_checked(table: OwnershipTable[Thing]) -> None:
    """B closed A's socket, its id went to C, A's cleanup closed C's: B is refused."""
    thing = Thing()
    of_a = table.add(A, thing)

    with pytest.raises(NotOwnedError, match=f"process {B} does not own .*; process {A} does"):
        table.release(B, of_a)

    assert table.get(A, of_a) is thing

    table.release(A, of_a)
    of_c = table.add(C, thing)

    assert of_c != of_a
    assert table.release(A, of_a) is None
    assert table.cleanup(A, Thing.release) == CleanupStats()
    assert table.get(C, of_c) is thing
    assert thing.releases == 0


def test_release_is_idempotent_but_refuses_what_was_never_issued(
    table: OwnershipTable[Thing],
) -> None:
    """The second release returns None; an id that was never issued is an error."""
    thing = Thing()
    resource_id = table.add(A, thing, 7)

    assert table.release(A, resource_id) is thing
    assert table.release(A, resource_id) is None
    assert table.nbytes(A) == 0

    for never in (0, -1, resource_id + 1_000_000):
        with pytest.raises(NotOwnedError, match="nobody here does"):
            table.release(A, ResourceId(never))


def test_get_and_find_refuse_strangers(table: OwnershipTable[Thing]) -> None:
    """Nobody gets at another's resource, by id or by object; the error names the owner."""
    indexed: OwnershipTable[Thing] = OwnershipTable("indexed", identity=lambda thing: thing)
    thing = Thing()
    plain_id = table.add(A, thing)
    indexed.add(A, thing)

    with pytest.raises(NotOwnedError):
        table.get(B, plain_id)
    with pytest.raises(NotOwnedError):
        table.find(B, thing)
    with pytest.raises(NotOwnedError) as caught:
        indexed.find(B, thing)

    assert caught.value.owner == A


def test_cleanup_is_newest_first(table: OwnershipTable[Thing]) -> None:
    """What was acquired last, and may lean on what came before, is released first."""
    things = [Thing(str(number)) for number in range(5)]
    for thing in things:
        table.add(A, thing)
    released: list[Thing] = []
    table.cleanup(A, released.append)

    assert released == things[::-1]


def test_a_resource_is_taken_out_before_its_release_is_called(
    table: OwnershipTable[Thing],
) -> None:
    """An error escaping a release replays the same items: pop before the call."""
    table.add(A, Thing("first"))
    table.add(A, Thing("second"))
    seen: list[list[str]] = []

    def release(thing: Thing) -> None:
        seen.append([thing.name, *(other.name for _, other in table.owned(A))])
        raise OSError("no")

    table.cleanup(A, release)
    stats = table.cleanup(A, release)

    assert seen == [["second", "first"], ["first"]]
    assert stats == CleanupStats()


@pytest.mark.parametrize(
    ("behave", "freed", "outcome", "stays"),
    [
        (None, 1, None, False),
        (lambda: Outcome.RELEASED, 1, None, False),
        (lambda: Outcome.ALREADY_GONE, 0, None, False),
        (lambda: Outcome.TRANSFERRED, 0, None, False),
        (lambda: Outcome.BUSY, 0, Outcome.BUSY, True),
        (lambda: Outcome.TIMEOUT, 0, Outcome.TIMEOUT, True),
        (lambda: Outcome.FAILED, 0, Outcome.FAILED, False),
        (lambda: Outcome.REFUSED, 0, Outcome.REFUSED, False),
        (raising(BusyResourceError("in use")), 0, Outcome.BUSY, True),
        (raising(ReleaseTimeoutError("too slow")), 0, Outcome.TIMEOUT, True),
        (raising(RefusedResourceError("not ours")), 0, Outcome.REFUSED, False),
        (raising(ReleaseError("went wrong")), 0, Outcome.FAILED, False),
        (raising(OSError("went wrong")), 0, Outcome.FAILED, False),
    ],
)
def test_an_outcome_is_counted_as_what_it_is(
    table: OwnershipTable[Thing],
    behave: object,
    freed: int,
    outcome: Outcome | None,
    stays: bool,
) -> None:
    """Only RELEASED is freed, with its bytes; BUSY and TIMEOUT stay owned; errors are listed."""
    thing = Thing("it", behave)  # type: ignore[arg-type]  # a table of callables
    table.add(A, thing, 9)
    stats = table.cleanup(A, Thing.release)

    assert (stats.resources_freed, stats.bytes_freed) == (freed, 9 * freed)
    assert stats.by_type == ({"things": 1} if freed else {})
    assert [(e.kind, e.resource, e.outcome) for e in stats.errors] == (
        [] if outcome is None else [("things", "it", outcome)]
    )
    assert stats.errors_encountered == len(stats.errors)
    assert all(failure.message for failure in stats.errors)
    assert (A in table, table.nbytes(A)) == (stays, 9 * stays)


def test_what_is_busy_keeps_its_place_and_its_bytes(table: OwnershipTable[Thing]) -> None:
    """A second cleanup finds the busy ones in the order of their acquisition."""
    for name, behave in [("a", None), ("b", "busy"), ("c", None), ("d", "busy")]:
        table.add(A, Thing(name, (lambda: Outcome.BUSY) if behave else None), 10)
    before = {thing.name: resource_id for resource_id, thing in table.owned(A)}
    table.cleanup(A, Thing.release)

    assert [thing.name for _, thing in table.owned(A)] == ["d", "b"]
    assert {thing.name: rid for rid, thing in table.owned(A)}.items() <= before.items()
    assert (table.count(A), table.nbytes(A)) == (2, 20)

    released: list[str] = []
    stats = table.cleanup(A, lambda thing: released.append(thing.name))

    assert released == ["d", "b"]
    assert stats.bytes_freed == 20


def test_transfer_changes_the_owner_and_nothing_else(table: OwnershipTable[Thing]) -> None:
    """The id and the bytes stay; the old owner's cleanup does not touch it."""
    thing = Thing()
    resource_id = table.add(A, thing, 11)
    table.transfer(A, resource_id, B)

    assert A not in table
    assert (table.nbytes(A), table.nbytes(B)) == (0, 11)
    assert table.get(B, resource_id) is thing
    assert table.cleanup(A, Thing.release) == CleanupStats()

    with pytest.raises(NotOwnedError):
        table.transfer(A, resource_id, C)
    table.transfer(B, resource_id, B)

    assert table.cleanup(B, Thing.release).bytes_freed == 11
    assert thing.releases == 1


def test_each_thing_has_one_owner() -> None:
    """With an identity, a second owner is refused until the first has released it."""
    table: OwnershipTable[list[Thing]] = OwnershipTable("wrapped", identity=lambda w: w[0])
    thing = Thing()
    first = table.add(A, [thing])

    with pytest.raises(AlreadyOwnedError, match=f"owned by process {A} already") as caught:
        table.add(B, [thing])

    assert caught.value.owner == A
    assert B not in table
    assert table.find(A, thing) == first

    table.transfer(A, first, B)

    assert table.find(B, thing) == first

    table.cleanup(B, lambda _: None)

    assert table.add(A, [thing]) > first


def test_an_identity_that_the_release_changes_leaves_no_trace() -> None:
    """A wrapper that drops its native object when released is forgotten like any other."""
    table: OwnershipTable[list[object]] = OwnershipTable("wrapped", identity=lambda w: w[0])
    native = Thing()
    wrapper: list[object] = [native]

    def release(wrapper: list[object]) -> None:
        wrapper[0] = None

    table.add(A, wrapper)
    stats = table.cleanup(A, release)

    assert stats.resources_freed == 1
    assert len(table._index.ids) == 0
    assert table.add(B, [native])


def test_negative_bytes_are_refused(table: OwnershipTable[Thing]) -> None:
    """ValueError, and nothing owned."""
    with pytest.raises(ValueError, match="-1"):
        table.add(A, Thing(), -1)

    assert A not in table


def test_acquire_makes_and_owns_or_does_neither(table: OwnershipTable[Thing]) -> None:
    """A make that raises leaves nothing; one that succeeds is owned with its bytes."""
    with pytest.raises(ZeroDivisionError):
        table.acquire(A, lambda: Thing(f"{1 // 0}"), Thing.release)

    assert A not in table

    thing = table.acquire(A, Thing, Thing.release, nbytes=6)

    assert table.find(A, thing)
    assert table.nbytes(A) == 6
    assert thing.releases == 0


def test_owners_that_have_ended_leave_nothing() -> None:
    """10 000 pids came and went by every way out; the table is as small as a new one."""
    table: OwnershipTable[Thing] = OwnershipTable("things", identity=lambda thing: thing)
    other = 10**6
    for pid in range(1, 10_001):
        first = table.add(pid, Thing(), 8)
        table.add(pid, Thing(), 8)
        if pid % 3 == 0:
            table.release(pid, first)
        if pid % 3 == 1:
            table.transfer(pid, first, other)
            table.cleanup(other, Thing.release)
        table.cleanup(pid, Thing.release)
    internals = (table._by_owner._by_pid, table._index.ids, table._sites)

    assert table.pids() == []
    assert [len(internal) for internal in internals] == [0, 0, 0]
    assert sum(sys.getsizeof(internal) for internal in internals) < 2000


def test_a_plain_pid_is_accepted_again_after_its_cleanup(table: OwnershipTable[Thing]) -> None:
    """Without a process manager a pid is a plain key."""
    for _ in range(3):
        table.add(A, Thing())

        assert table.cleanup(A, Thing.release).resources_freed == 1
        assert A not in table


def test_what_a_release_acquires_is_released_by_the_same_cleanup(
    table: OwnershipTable[Thing],
) -> None:
    """An unmanaged owner may acquire while it is cleaned; nothing is left behind."""
    numbers = itertools.count()

    def release(_: Thing) -> None:
        if next(numbers) < 3:
            table.add(A, Thing())

    table.add(A, Thing())

    assert table.cleanup(A, release).resources_freed == 4
    assert A not in table


def test_an_int_is_found_by_its_value() -> None:
    """A descriptor is a number, not an object: any int of that value will do."""
    table: OwnershipTable[int] = OwnershipTable("things", identity=lambda number: number)
    resource_id = table.add(1, int("100000"))

    assert table.find(1, int("100000")) == resource_id
    with pytest.raises(AlreadyOwnedError):
        table.add(2, int("100000"))
    assert table.release(1, resource_id) == 100000


def test_an_alias_finds_what_a_user_holds_in_its_place() -> None:
    """A wrapper finds what it wraps."""
    wrapped = object()
    table: OwnershipTable[object] = OwnershipTable(
        "things",
        identity=lambda thing: thing,
        alias=lambda thing: thing[0] if isinstance(thing, tuple) else thing,
    )
    resource_id = table.add(1, wrapped)

    assert [table.find(1, each) for each in (wrapped, (wrapped,))] == [resource_id] * 2


def test_whose_an_object_is_can_be_asked_and_ended_whoever_has_it() -> None:
    """Also after a transfer, and by one who never had it; None if nobody owns it."""
    table: OwnershipTable[object] = OwnershipTable("things", identity=lambda thing: thing)
    thing = object()
    assert table.owner_of(thing) is None
    assert table.disown(A, thing) is None

    table.transfer(A, table.add(A, thing), B)

    assert table.owner_of(thing) == B
    assert table.disown(A, thing) is thing
    assert table.owner_of(thing) is None
    assert B not in table
