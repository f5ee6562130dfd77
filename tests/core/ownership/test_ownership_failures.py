"""Releases, descriptions and answers that go wrong: counted, and the rest is released."""

from __future__ import annotations

import asyncio

import pytest
from plugins_things import Thing, raising

from probate import InterruptedCleanup, Outcome, OwnershipTable, ReleaseError

A = 1


@pytest.fixture
def table() -> OwnershipTable[Thing]:
    return OwnershipTable("things")


@pytest.mark.parametrize(
    "error",
    [ValueError("bad"), asyncio.CancelledError("bad"), GeneratorExit("bad"), StopIteration("bad")],
)
def test_one_failure_never_keeps_the_next_from_being_tried(
    table: OwnershipTable[Thing], error: BaseException
) -> None:
    """BaseExceptions too: they are accounted for as FAILED, and the rest is released."""
    things = [Thing("older"), Thing("bad", raising(error)), Thing("newer")]
    for thing in things:
        table.add(A, thing)
    stats = table.cleanup(A, Thing.release)

    assert [thing.releases for thing in things] == [1, 1, 1]
    assert stats.resources_freed == 2
    assert [e.message for e in stats.errors] == [f"{type(error).__name__}: bad"]
    assert A not in table


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupt_is_raised_when_all_was_tried(
    table: OwnershipTable[Thing], error: BaseException
) -> None:
    """KeyboardInterrupt and SystemExit come out as InterruptedCleanup, with the account."""
    older, stuck = Thing("older"), Thing("stuck", lambda: Outcome.BUSY)
    for thing in (stuck, older, Thing("interrupted", raising(error))):
        table.add(A, thing)

    with pytest.raises(InterruptedCleanup) as caught:
        table.cleanup(A, Thing.release)

    assert caught.value.interrupt is error
    assert caught.value.__cause__ is error
    assert caught.value.stats.resources_freed == 1
    assert older.releases == 1
    assert [thing.name for _, thing in table.owned(A)] == ["stuck"]


class WithoutText(Exception):  # noqa: N818  it is what it is
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [WithoutText(), type("Mute", (ReleaseError, WithoutText), {})()])
def test_a_failure_without_a_text_is_a_failure_like_any_other(
    table: OwnershipTable[Thing], error: Exception
) -> None:
    """An exception whose text raises is counted, and the rest is released."""
    older, stuck = Thing("older"), Thing("stuck", lambda: Outcome.BUSY)
    for thing in (older, Thing("mute", raising(error)), stuck):
        table.add(A, thing)
    stats = table.cleanup(A, Thing.release)

    assert older.releases == 1
    assert stats.errors_encountered == 2
    assert [thing.name for _, thing in table.owned(A)] == ["stuck"]


@pytest.mark.parametrize("answer", [True, False, 0, 1, "released", "busy", object()])
def test_a_release_that_answers_nonsense_is_never_counted_as_freed(
    table: OwnershipTable[Thing], answer: object
) -> None:
    """`future.cancel` returns a bool: what is no Outcome is FAILED, and the rest is released."""
    older, stuck = Thing("older"), Thing("stuck", lambda: Outcome.BUSY)
    for thing in (older, Thing("odd", lambda: answer), stuck):
        table.add(A, thing)
    stats = table.cleanup(A, Thing.release)

    assert [(e.resource, e.outcome) for e in stats.errors] == [
        ("stuck", Outcome.BUSY),
        ("odd", Outcome.FAILED),
    ]
    assert stats.resources_freed == 1
    assert [thing.name for _, thing in table.owned(A)] == ["stuck"]


@pytest.mark.parametrize(
    "describe",
    [
        lambda _: 1 / 0,
        lambda _: raising(asyncio.CancelledError())(),
        lambda _: None,
        lambda _: 7,
    ],
    ids=["raises", "raises CancelledError", "None", "a number"],
)
def test_a_resource_that_cannot_be_described_has_a_name_all_the_same(describe: object) -> None:
    """A describe that raises, or gives no text, neither stops a cleanup nor the usage."""
    table: OwnershipTable[Thing] = OwnershipTable("things", describe=describe)  # type: ignore[arg-type]  # that is the point
    older, stuck = Thing(), Thing("stuck", lambda: Outcome.BUSY)
    for thing in (older, stuck, Thing("bad", raising(OSError("no")))):
        table.add(A, thing)
    usage = table.usage(A)
    stats = table.cleanup(A, Thing.release)

    assert usage.count == 3
    assert all(info.description for info in usage.resources)
    assert stats.errors_encountered == 2
    assert older.releases == 1
    assert [thing.name for _, thing in table.owned(A)] == ["stuck"]
