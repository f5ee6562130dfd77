"""Releases of many at once: what is taken off the list is released, the rest one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugins_things import Thing

from probate import InterruptedCleanup, OwnershipTable

if TYPE_CHECKING:
    from collections.abc import Callable

A, B = 1, 2


def table_of(
    things: list[Thing],
    release_many: Callable[[list[Thing]], object],
    release: Callable[[Thing], object] = Thing.release,
    *,
    is_indexed: bool = False,
) -> OwnershipTable[Thing]:
    """A table in which A owns them, of 10 bytes each."""
    identity = (lambda thing: thing) if is_indexed else None
    table = OwnershipTable("things", release, release_many=release_many, identity=identity)
    for thing in things:
        table.add(A, thing, 10)
    return table


@pytest.mark.parametrize("is_indexed", [False, True])
@given(st.integers(2, 12), st.integers(0, 12), st.booleans())
def test_each_is_released_once_newest_first(
    is_indexed: bool, number: int, at_once: int, raises: bool
) -> None:
    """In either way: the account counts all, and nothing of them is left in the table."""
    things = [Thing(str(index)) for index in range(number)]
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

    table = table_of(things, release_many, release, is_indexed=is_indexed)
    table.add(B, kept := Thing("kept"))
    stats = table.cleanup(A)

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
    """What was not yet released is released one by one."""
    things = [Thing("a"), Thing("b"), Thing("c")]

    def release_many(left: list[Thing]) -> None:
        left.pop().release()
        raise error

    with pytest.raises(InterruptedCleanup) as caught:
        table_of(things, release_many).cleanup(A)

    assert caught.value.interrupt is error
    assert caught.value.stats.resources_freed == 3
    assert [thing.releases for thing in things] == [1, 1, 1]


def test_a_cleanup_with_a_release_of_its_own_does_without() -> None:
    """A release given to the call is called for each."""
    things = [Thing("a"), Thing("b")]

    def release_many(_: list[Thing]) -> None:
        pytest.fail("asked although the call has a release")

    assert table_of(things, release_many).cleanup(A, Thing.release).resources_freed == 2


def test_one_alone_is_released_alone() -> None:
    """A list of one would save nothing."""
    thing = Thing("only")

    def release_many(_: list[Thing]) -> None:
        pytest.fail("asked to release one at once")

    assert table_of([thing], release_many).cleanup(A).resources_freed == 1
    assert thing.releases == 1


def test_what_is_acquired_meanwhile_is_released_too() -> None:
    """Without a manager to refuse it: the cleanup ends when nothing is left."""
    late = Thing("late")

    def release_many(left: list[Thing]) -> None:
        left.clear()
        table.add(A, late)

    table = table_of([Thing("a"), Thing("b")], release_many)

    assert table.cleanup(A).resources_freed == 3
    assert late.releases == 1
    assert A not in table
