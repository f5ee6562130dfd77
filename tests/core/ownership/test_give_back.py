"""Closing by hand: there is one way, and what could not be given back stays owned."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

import pytest
from plugins_things import Thing, raising

from probate import (
    BusyResourceError,
    NotOwnedError,
    Outcome,
    OwnershipTable,
    ReleaseError,
    ReleaseTimeoutError,
    ResourceId,
)
from probate.ownership.admission import Admission

if TYPE_CHECKING:
    from collections.abc import Callable

A, B = 1, 2


def table_of(*, is_indexed: bool = True) -> OwnershipTable[Thing]:
    """Make a table with a release function."""
    identity = (lambda thing: thing) if is_indexed else None
    return OwnershipTable("things", Thing.release, identity=identity)


@pytest.mark.parametrize("is_indexed", [False, True])
def test_what_is_given_back_is_owned_no_more(is_indexed: bool) -> None:
    """It is released once, now; a cleanup finds nothing, and the thing can be owned again."""
    table, thing = table_of(is_indexed=is_indexed), Thing()
    table.add(A, thing, 7)

    assert table.give_back(A, thing) is Outcome.RELEASED
    assert (thing.releases, A in table, table.nbytes(A)) == (1, False, 0)
    assert table.cleanup(A).resources_freed == 0
    assert table.add(B, thing)


@pytest.mark.parametrize(
    "behave",
    [
        lambda: Outcome.BUSY,
        raising(BusyResourceError("in use")),
        raising(ReleaseTimeoutError("too slow")),
        raising(KeyboardInterrupt()),
    ],
    ids=["returned", "busy", "too slow", "interrupted"],
)
@pytest.mark.parametrize("is_indexed", [False, True])
def test_what_is_busy_stays_owned_under_its_id(
    behave: Callable[[], object], is_indexed: bool
) -> None:
    """With its bytes; it is found by object and id, and released when its owner ends."""
    table, thing = table_of(is_indexed=is_indexed), Thing("it", behave)
    resource_id = table.add(A, thing, 7)
    with contextlib.suppress(ReleaseError, KeyboardInterrupt):
        assert table.give_back(A, thing) is Outcome.BUSY
    thing.behave = None

    assert (table.find(A, thing), table.nbytes(A)) == (resource_id, 7)
    assert table.get(A, resource_id) is thing
    assert table.cleanup(A).bytes_freed == 7


@pytest.mark.parametrize("error", [OSError("no"), ReleaseError("no")])
def test_what_fails_is_raised_and_never_tried_again(error: Exception) -> None:
    """The caller of give_back sees the error; nobody owns the thing then."""
    table, thing = table_of(), Thing("it", raising(error))
    table.add(A, thing)

    with pytest.raises(type(error)):
        table.give_back(A, thing)
    assert A not in table


def test_only_its_owner_gives_a_thing_back() -> None:
    """NotOwnedError names the owner, and the thing is untouched."""
    table, thing = table_of(), Thing()
    resource_id = table.add(A, thing)

    with pytest.raises(NotOwnedError, match="process 1 does"):
        table.give_back(B, thing)
    with pytest.raises(NotOwnedError, match="process 1 does"):
        table.give_back_id(B, resource_id)
    assert thing.releases == 0


def test_an_id_that_is_gone_is_already_gone() -> None:
    """Twice does no harm; an id that was never issued is an error."""
    table, thing = table_of(), Thing()
    resource_id = table.add(A, thing)
    table.give_back(A, thing)

    assert table.give_back_id(A, resource_id) is Outcome.ALREADY_GONE
    with pytest.raises(NotOwnedError):
        table.give_back_id(A, ResourceId(10**12))


def test_a_table_without_a_release_says_so() -> None:
    """TypeError, before anything is taken out; a call may bring its own."""
    table: OwnershipTable[Thing] = OwnershipTable("things")
    thing = Thing()
    table.add(A, thing)

    for act in (
        lambda: table.cleanup(A),
        lambda: table.give_back(A, thing),
        lambda: table.acquire(A, Thing),
    ):
        with pytest.raises(TypeError, match="without a release function"):
            act()
    assert table.resources(A) == [thing]
    assert table.give_back(A, thing, Thing.release) is Outcome.RELEASED


def test_acquire_gives_back_by_the_tables_release() -> None:
    """What was made for an owner that has ended meanwhile is released at once."""
    table = table_of()
    made: list[Thing] = []

    def make() -> Thing:
        made.append(Thing())
        table.add(B, made[0])  # somebody else was quicker
        return made[0]

    with pytest.raises(Exception, match="owned by process 2 already"):
        table.acquire(A, make)
    assert made[0].releases == 1


class Session:
    """Closed by a coroutine, on the loop that it belongs to."""

    def __init__(self) -> None:
        self.closed_on: list[asyncio.AbstractEventLoop] = []

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed_on.append(asyncio.get_running_loop())


def test_a_coroutine_function_runs_on_the_loop_of_the_addition() -> None:
    """From any other thread; the account is made when it has ended."""
    table = OwnershipTable("sessions", Session.close)
    session = Session()

    async def own_and_end() -> tuple[asyncio.AbstractEventLoop, int]:
        table.add(A, session)
        stats = await asyncio.to_thread(table.cleanup, A)
        return asyncio.get_running_loop(), stats.resources_freed

    loop, freed = asyncio.run(own_and_end())

    assert (session.closed_on, freed) == ([loop], 1)


def test_a_coroutine_function_without_a_loop_gets_one() -> None:
    """A new one, on a thread of its own; the caller's thread has none before and after."""
    table = OwnershipTable("sessions", Session.close)
    session = Session()
    table.add(A, session)

    assert table.cleanup(A).resources_freed == 1
    assert len(session.closed_on) == 1
    assert session.closed_on[0].is_closed()


def test_on_the_loops_own_thread_it_is_busy() -> None:
    """Waiting would hold up the very loop that has to run it; it stays owned."""
    table = OwnershipTable("sessions", Session.close)
    session = Session()

    async def own_and_end() -> Outcome:
        table.add(A, session)
        return table.cleanup(A).errors[0].outcome

    assert asyncio.run(own_and_end()) is Outcome.BUSY
    assert table.resources(A) == [session]


def test_of_a_closed_loop_it_has_failed() -> None:
    """What had to run there did not, and never can: FAILED, and nobody owns it any more."""
    table = OwnershipTable("sessions", Session.close)
    session = Session()

    async def own() -> None:
        table.add(A, session)

    asyncio.run(own())
    stats = table.cleanup(A)

    assert [error.outcome for error in stats.errors] == [Outcome.FAILED]
    assert "its event loop is closed" in stats.errors[0].message
    assert A not in table


def test_of_a_loop_that_does_not_run_it_is_busy() -> None:
    """It may run again; then it is given back."""
    table = OwnershipTable("sessions", Session.close)
    session = Session()
    loop = asyncio.new_event_loop()

    async def own() -> None:
        table.add(A, session)

    loop.run_until_complete(own())

    assert table.cleanup(A).errors[0].outcome is Outcome.BUSY

    runner = threading.Thread(target=loop.run_forever)
    runner.start()
    try:
        while not loop.is_running():
            pass
        assert table.cleanup(A).resources_freed == 1
    finally:
        loop.call_soon_threadsafe(loop.stop)
        runner.join()
        loop.close()
    assert session.closed_on == [loop]


def test_what_is_released_or_moved_by_hand_is_not_remembered() -> None:
    """Notes of loops end with the ownership: nothing grows."""
    table = OwnershipTable("sessions", Session.close)

    async def come_and_go() -> None:
        for _ in range(100):
            table.release(A, table.add(A, Session()))
            table.add(A, session := Session())
            await asyncio.to_thread(table.give_back, A, session)

    asyncio.run(come_and_go())

    assert table.releaser._loops == {}


def test_of_what_is_refused_nothing_is_remembered() -> None:
    """Its owner ends while it is made: no note of its loop stays behind."""
    table = OwnershipTable("sessions", Session.close)
    table.wire("sessions", admission := Admission())

    async def own() -> None:
        with contextlib.ExitStack() as stack:

            def make() -> Session:
                stack.enter_context(admission.refuse_while(A))
                return Session()

            with pytest.raises(BusyResourceError):
                table.acquire(A, make)

    asyncio.run(own())

    assert A not in table
    assert table.releaser._loops == {}


def test_what_falls_in_just_before_the_release_leaves_it_owned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has been taken out, and nothing has been called: the owner's end does it."""
    released: list[str] = []
    table = OwnershipTable[str]("things", released.append)
    number = table.add(A, "thing", 7)

    def interrupted(*_: object) -> Outcome:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("probate.ownership.table.release_by_hand", interrupted)
        with pytest.raises(KeyboardInterrupt):
            table.give_back_id(A, number)

    assert (released, table.resources(A), table.usage(A).nbytes) == ([], ["thing"], 7)
    assert table.cleanup(A).bytes_freed == 7
    assert released == ["thing"]


def test_an_object_that_is_called_like_a_coroutine_function_is_awaited() -> None:
    """What it returns was taken for an outcome, and the resource for lost."""

    class Closing:
        async def __call__(self, session: Session) -> None:
            await session.close()

    table = OwnershipTable[Session]("sessions", Closing())
    session = Session()
    table.add(A, session)

    assert table.cleanup(A).resources_freed == 1
    assert len(session.closed_on) == 1
