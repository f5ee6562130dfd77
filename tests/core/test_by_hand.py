"""By hand, over all kinds: adopting, giving back, disowning; and what each refuses."""

from __future__ import annotations

import asyncio
import threading
import weakref
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pytest
from plugins_things import Thing, ThingResource, busy, managed, raising

from probate import (
    AlreadyOwnedError,
    BusyResourceError,
    Callback,
    NotOwnedError,
    Ordering,
    Outcome,
    OwnershipTable,
    ProcessTerminatedError,
    ResourceId,
    ResourceKind,
    ResourceLimitExceeded,
    ResourceLimits,
    ResourceOrchestrator,
    UnadoptableError,
    hookimpl,
)

if TYPE_CHECKING:
    from collections.abc import Callable

A, B = 7, 8


def things() -> ResourceKind:
    """A kind of things that are known by identity."""
    table: OwnershipTable[Thing] = OwnershipTable("things", Thing.release, identity=lambda t: t)

    def adopt(pid: int, thing: object) -> ResourceId | None:
        return table.add(pid, thing) if isinstance(thing, Thing) else None

    return ResourceKind(table, Ordering(1), adopt=adopt)


def calls() -> ResourceKind:
    """A kind that calls functions."""
    table = OwnershipTable("calls", Callback.__call__, identity=attrgetter("identity"))

    def adopt(pid: int, call: object) -> ResourceId | None:
        return table.add(pid, call) if isinstance(call, Callback) else None

    return ResourceKind(table, Ordering(2), adopt=adopt)


@pytest.fixture
def orchestrator() -> ResourceOrchestrator:
    """Three kinds, the last of which takes what the first does, and has no release function."""
    orchestrator = ResourceOrchestrator().register(things()).register(calls())
    return orchestrator.register(ThingResource("others", -9))


def table_of(orchestrator: ResourceOrchestrator, kind: str) -> OwnershipTable[Any]:
    table: OwnershipTable[Any] = orchestrator[kind].table
    return table


ACTS = [ResourceOrchestrator.give_back, ResourceOrchestrator.disown]


# -- giving back and disowning -----------------------------------------------------


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("is_by_id", [False, True])
def test_only_its_owner_gives_back_and_disowns(
    orchestrator: ResourceOrchestrator, act: Callable[..., object], is_by_id: bool
) -> None:
    """The error names kind and owner, whichever kind was asked first; nothing has changed."""
    thing = Thing("mine")
    resource_id = table_of(orchestrator, "things").add(A, thing)

    with pytest.raises(NotOwnedError, match=f"process {A} does") as caught:
        act(orchestrator, B, resource_id if is_by_id else thing)
    assert (caught.value.kind, caught.value.pid, caught.value.owner) == ("things", B, A)
    assert thing.releases == 0
    assert list(orchestrator.usage(A)) == ["things"]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("what", [Thing("nobody's"), 10**15, -1, 0, True, "text", None])
def test_what_nobody_owns_is_not_owned(
    orchestrator: ResourceOrchestrator, act: Callable[..., object], what: object
) -> None:
    """Also by an id that was never issued; and where there is no kind at all."""
    table_of(orchestrator, "things").add(A, Thing())

    for each in (orchestrator, ResourceOrchestrator()):
        with pytest.raises(NotOwnedError, match="nobody here does") as caught:
            act(each, A, what)
        assert caught.value.owner is None
    assert table_of(orchestrator, "things").count(A) == 1


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("is_by_id", [False, True])
def test_what_is_gone_is_not_owned(
    orchestrator: ResourceOrchestrator, act: Callable[..., object], is_by_id: bool
) -> None:
    """A second time is an error, and releases nothing."""
    thing = Thing()
    resource_id = orchestrator.adopt(A, thing)
    act(orchestrator, A, thing)
    releases = thing.releases

    with pytest.raises(NotOwnedError):
        act(orchestrator, A, resource_id if is_by_id else thing)
    assert thing.releases == releases
    assert orchestrator.usage(A) == {}


def test_an_int_is_an_id_and_never_the_number_itself(orchestrator: ResourceOrchestrator) -> None:
    """A number that is owned, such as a descriptor's, is given back by the id of its adoption."""
    given_back: list[int] = []
    number = 10**15
    resource_id = orchestrator.adopt(A, number, given_back.append)

    with pytest.raises(NotOwnedError):
        orchestrator.give_back(A, number)
    assert orchestrator.give_back(A, resource_id) is Outcome.RELEASED
    assert given_back == [number]


def adopted(orchestrator: ResourceOrchestrator, behave: Callable[[], object]) -> Thing:
    """A thing of A, and what its release does."""
    orchestrator.adopt(A, thing := Thing("thing", behave))
    return thing


@pytest.mark.parametrize("is_by_id", [False, True])
def test_what_is_busy_stays_owned_and_what_fails_does_not(
    orchestrator: ResourceOrchestrator, is_by_id: bool
) -> None:
    """BUSY comes back or is raised, whichever the release does; a failure is raised."""
    table = table_of(orchestrator, "things")
    stuck = adopted(orchestrator, busy(1))
    refusing = adopted(orchestrator, raising(BusyResourceError("in use")))
    failing = adopted(orchestrator, raising(OSError("no")))

    def give_back(thing: Thing) -> Outcome:
        return orchestrator.give_back(A, table.find(A, thing) if is_by_id else thing)

    assert give_back(stuck) is Outcome.BUSY
    with pytest.raises(BusyResourceError, match="in use"):
        give_back(refusing)
    with pytest.raises(OSError, match="no"):
        give_back(failing)
    assert set(table.resources(A)) == {stuck, refusing}
    assert give_back(stuck) is Outcome.RELEASED


def test_a_table_without_a_release_gives_nothing_back_and_disowns() -> None:
    """A plugin that releases in a function of its own: TypeError, and it is owned still."""
    plugin = ThingResource()
    orchestrator = ResourceOrchestrator().register(plugin)
    orchestrator.adopt(A, thing := Thing())

    with pytest.raises(TypeError, match="without a release function"):
        orchestrator.give_back(A, thing)
    assert plugin.table.resources(A) == [thing]

    orchestrator.disown(A, thing)

    assert thing.releases == 0
    assert A not in plugin.table


def test_what_is_disowned_can_be_owned_again(orchestrator: ResourceOrchestrator) -> None:
    """By anybody; a cleanup of who owned it leaves it alone."""
    thing = Thing()
    first = orchestrator.adopt(A, thing)
    orchestrator.disown(A, first)
    second = orchestrator.adopt(B, thing)

    assert first != second
    assert orchestrator.cleanup_process(A).stats.resources_freed == 0
    assert thing.releases == 0
    assert orchestrator.cleanup_process(B).stats.resources_freed == 1


def test_give_back_async_raises_what_give_back_does(orchestrator: ResourceOrchestrator) -> None:
    """The loop turns meanwhile, on which the release depends."""
    turned = threading.Event()
    waiting = adopted(orchestrator, lambda: None if turned.wait(10) else 1 / 0)
    failing = adopted(orchestrator, raising(OSError("no")))

    async def main() -> Outcome:
        with pytest.raises(OSError, match="no"):
            await orchestrator.give_back_async(A, failing)
        with pytest.raises(NotOwnedError):
            await orchestrator.give_back_async(B, waiting)
        asyncio.get_running_loop().call_soon(turned.set)
        return await orchestrator.give_back_async(A, waiting)

    assert asyncio.run(main()) is Outcome.RELEASED


# -- adopting ----------------------------------------------------------------------


def test_a_kind_that_fails_to_look_keeps_no_other_from_adopting() -> None:
    """Only if nobody takes it is the failure told, with the name of the plugin."""

    class Confused(ThingResource):
        @hookimpl
        def adopt(self, pid: int, resource: object) -> ResourceId | None:
            raise ZeroDivisionError("confused")

    orchestrator = ResourceOrchestrator().register(Confused("confused", 99)).register(things())

    assert orchestrator.adopt(A, Thing())
    with pytest.raises(UnadoptableError, match="asked: confused, things") as caught:
        orchestrator.adopt(A, "text")
    cause = caught.value.__cause__
    assert isinstance(cause, ExceptionGroup)
    assert [str(error) for error in cause.exceptions] == ["confused"]
    assert cause.exceptions[0].__notes__ == ["raised by adopt() of plugin 'confused'"]


def test_why_a_kind_refuses_what_it_knows_is_said() -> None:
    """The error itself says it, not only its cause; what cannot be owned has no way out."""

    class Strict(ThingResource):
        @hookimpl
        def adopt(self, pid: int, resource: object) -> ResourceId | None:
            raise ValueError("it is closed")

    orchestrator = ResourceOrchestrator().register(Strict("strict", 99))

    with pytest.raises(UnadoptableError) as caught:
        orchestrator.adopt(A, "text")
    assert str(caught.value) == "no kind adopts this str: it is closed; asked: strict"


@pytest.mark.parametrize("refer", [weakref.ref, weakref.proxy])
def test_a_weak_reference_is_not_owned_in_the_place_of_a_thing(
    orchestrator: ResourceOrchestrator, refer: Callable[[Thing], object]
) -> None:
    """A proxy passes for what it refers to: that had two owners, or was gone at the end."""
    thing = Thing()

    with pytest.raises(UnadoptableError, match="adopt what it refers to"):
        orchestrator.adopt(A, refer(thing))

    assert not orchestrator.has_resources(A)
    orchestrator.adopt(B, thing)


def test_a_kind_that_knows_and_refuses_is_the_last_that_is_asked(
    orchestrator: ResourceOrchestrator,
) -> None:
    """What has an owner in one kind is not offered to the next, which would take it."""
    orchestrator.adopt(A, thing := Thing())

    with pytest.raises(AlreadyOwnedError, match=f"things: .* owned by process {A}"):
        orchestrator.adopt(B, thing)
    assert table_of(orchestrator, "others").pids() == []


@pytest.mark.parametrize("release", [Thing.release, lambda thing: None])
def test_what_any_kind_owns_is_not_adopted_with_a_function(
    orchestrator: ResourceOrchestrator, release: Callable[[Thing], object]
) -> None:
    """Owned natively or by a function; the error names kind and owner, and nothing is called."""
    native, called = Thing(), Thing()
    orchestrator.adopt(A, called, release)
    table_of(orchestrator, "things").add(A, native)

    for thing, kind in ((native, "things"), (called, "calls")):
        with pytest.raises(AlreadyOwnedError, match=f"owned by process {A}") as caught:
            orchestrator.adopt(B, thing, release)
        assert caught.value.kind == kind
    assert B not in table_of(orchestrator, "calls")
    assert (native.releases, called.releases) == (0, 0)


def test_what_is_given_back_by_a_function_is_adopted_by_no_kind(
    orchestrator: ResourceOrchestrator,
) -> None:
    """A kind that knows such things took it, and each of its two owners released it."""
    called = Thing()
    orchestrator.adopt(A, called, Thing.release)

    with pytest.raises(AlreadyOwnedError, match=f"calls: .* owned by process {A}"):
        orchestrator.adopt(B, called)
    assert not orchestrator.has_resources(B)


@pytest.mark.parametrize("release", [3, "close"])
def test_what_cannot_be_called_is_a_type_error(
    orchestrator: ResourceOrchestrator, release: Any
) -> None:
    """And nothing is owned."""
    with pytest.raises(TypeError, match="expected a function to call"):
        orchestrator.adopt(A, Thing(), release)
    assert orchestrator.usage(A) == {}


def test_without_a_kind_that_calls_functions_the_error_says_which() -> None:
    """The other kinds are not offered the thing itself, which they would take."""
    orchestrator = ResourceOrchestrator().register(things())

    with pytest.raises(UnadoptableError, match="pip install probate-callbacks"):
        orchestrator.adopt(A, Thing(), Thing.release)
    assert orchestrator.usage(A) == {}


@pytest.mark.parametrize("pid", ["7", None, 7.0, True])
def test_a_pid_that_is_none_is_a_type_error(orchestrator: ResourceOrchestrator, pid: Any) -> None:
    """Before any kind is asked."""
    for act in (
        lambda: orchestrator.adopt(pid, Thing()),
        lambda: orchestrator.adopt(pid, Thing(), Thing.release),
        lambda: orchestrator.cleanup_process(pid),
        lambda: orchestrator.usage(pid),
        lambda: orchestrator.has_resources(pid),
    ):
        with pytest.raises(TypeError, match="a pid must be an int"):
            act()


def test_the_dead_and_the_full_adopt_nothing() -> None:
    """With a function or without: refused, and nothing is called."""
    plugins: Any = (things(), calls())
    with managed(*plugins, limits=ResourceLimits(max_count=0)) as manager:
        full, dead = manager.create_process("full"), manager.create_process("dead")
        dead.terminate()
        thing = Thing()

        for process, error in ((full, ResourceLimitExceeded), (dead, ProcessTerminatedError)):
            with pytest.raises(error):
                process.adopt(thing)
            with pytest.raises(error):
                process.adopt(thing, release=Thing.release)
        assert thing.releases == 0
        assert full.terminate().stats.resources_freed == 0
