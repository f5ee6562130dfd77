"""Releases by the dozen: what is taken off the list is released, the rest goes one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugins_things import Thing

from probate import InterruptedCleanup, OwnershipTable

A, B = 1, 2


def table_of(things: list[Thing], *, is_indexed: bool = False) -> OwnershipTable[Thing]:
    """A table in which A owns them, of 10 bytes each."""
    identity = (lambda thing: thing) if is_indexed else None
    table: OwnershipTable[Thing] = OwnershipTable("things", identity=identity)
    for thing in things:
        table.add(A, thing, 10)
    return table


@pytest.mark.parametrize("is_indexed", [False, True])
@given(st.integers(2, 12), st.integers(0, 12), st.booleans())
def test_each_is_released_once_newest_first(
    is_indexed: bool, number: int, at_once: int, raises: bool
) -> None:
    """By whichever way: the account counts all, and nothing of them is left in the books."""
    things = [Thing(str(index)) for index in range(number)]
    table = table_of(things, is_indexed=is_indexed)
    table.add(B, kept := Thing("kept"))
    order: list[Thing] = []

    def release(thing: Thing) -> None:
        order.append(thing)
        thing.release()

    def release_many(left: list[Thing]) -> None:
        assert left == things
        for _ in range(min(at_once, number)):
            release(left[-1])
            left.pop()
        if raises:
            raise ValueError("no luck")

    stats = table.cleanup(A, release, release_many=release_many)

    assert order == things[::-1]
    assert [thing.releases for thing in things] == [1] * number
    assert (stats.resources_freed, stats.bytes_freed) == (number, 10 * number)
    assert stats.errors_encountered == 0
    assert table.pids() == [B]
    assert kept.releases == 0
    if is_indexed:
        for thing in things:
            table.add(B, thing)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupt_is_raised_when_all_is_released(error: BaseException) -> None:
    """What was not yet released goes one by one."""
    things = [Thing("a"), Thing("b"), Thing("c")]
    table = table_of(things)

    def release_many(left: list[Thing]) -> None:
        left.pop().release()
        raise error

    with pytest.raises(InterruptedCleanup) as caught:
        table.cleanup(A, Thing.release, release_many=release_many)

    assert caught.value.interrupt is error
    assert caught.value.stats.resources_freed == 3
    assert [thing.releases for thing in things] == [1, 1, 1]


def test_one_alone_is_released_alone() -> None:
    """There is nothing to be gained."""
    table = table_of([thing := Thing("only")])

    def release_many(_: list[Thing]) -> None:
        pytest.fail("asked to release one at once")

    assert table.cleanup(A, Thing.release, release_many=release_many).resources_freed == 1
    assert thing.releases == 1


def test_what_is_acquired_meanwhile_is_released_too() -> None:
    """Without a manager to refuse it: the cleanup ends when nothing is left."""
    table = table_of([Thing("a"), Thing("b")])
    late = Thing("late")

    def release_many(left: list[Thing]) -> None:
        left.clear()
        table.add(A, late)

    assert table.cleanup(A, Thing.release, release_many=release_many).resources_freed == 3
    assert late.releases == 1
    assert A not in table
