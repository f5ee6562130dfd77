"""The place of a kind in the cleanup order, which is pluggy's order too."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import PRIORITIES
from plugins_things import ThingResource, orchestrate

from probate import Ordering, OrderingCycleError
from probate.plugins.order import cleanup_order


def test_the_highest_priority_is_cleaned_first() -> None:
    """The order that the users require, from the priorities alone, however they come in."""
    orderings = {kind: Ordering(priority) for kind, priority in PRIORITIES.items()}
    for permutation in itertools.islice(itertools.permutations(orderings.items()), 0, None, 30011):
        assert cleanup_order(dict(permutation)) == list(PRIORITIES)


def test_equal_priorities_are_in_descending_order_of_their_names() -> None:
    """Registered by ascending (priority, name), called last-registered-first."""
    kinds = ["b", "a", "ab", "", "B", "é", "aa"]

    assert cleanup_order({kind: Ordering(1) for kind in kinds}) == sorted(kinds, reverse=True)


def test_before_and_after_override_priority() -> None:
    """However low, what must be before is before; however high, what must be after is after."""
    moved_up = {"high": Ordering(9), "low": Ordering(1, before=("high",)), "mid": Ordering(5)}
    moved_down = {"high": Ordering(9, after=("low",)), "low": Ordering(1), "mid": Ordering(5)}

    assert cleanup_order(moved_up) == ["low", "high", "mid"]
    assert cleanup_order(moved_down) == ["mid", "low", "high"]


def test_constraints_are_transitive() -> None:
    """If a is before b and b before c, a is before c, against all priorities."""
    orderings = {
        "c": Ordering(100),
        "b": Ordering(50, before=("c",)),
        "a": Ordering(0, before=("b",)),
        "z": Ordering(99),
    }

    assert cleanup_order(orderings) == ["a", "b", "c", "z"]


def test_kinds_that_are_not_installed_are_ignored() -> None:
    """A constraint on an absent kind is none."""
    orderings = {"a": Ordering(1, before=("ghost",), after=("spectre",)), "b": Ordering(2)}

    assert cleanup_order(orderings) == ["b", "a"]
    assert cleanup_order({}) == []


@pytest.mark.parametrize(
    ("orderings", "members"),
    [
        ({"a": Ordering(0, before=("a",))}, {"a"}),
        ({"a": Ordering(0, before=("b",)), "b": Ordering(0, before=("a",))}, {"a", "b"}),
        ({"a": Ordering(0, before=("b",), after=("b",)), "b": Ordering(0)}, {"a", "b"}),
        (
            {
                "a": Ordering(0, before=("b",)),
                "b": Ordering(0, before=("c",)),
                "c": Ordering(0, before=("a",)),
                "bystander": Ordering(0, before=("a",)),
            },
            {"a", "b", "c"},
        ),
    ],
)
def test_a_cycle_is_an_error_that_names_its_members(
    orderings: dict[str, Ordering], members: set[str]
) -> None:
    """All members, and no bystander, in the order of the contradiction."""
    with pytest.raises(OrderingCycleError) as caught:
        cleanup_order(orderings)

    named = caught.value.members

    assert set(named) == members
    assert " before ".join(named) in str(caught.value)
    for first, second in itertools.pairwise(named):
        assert second in orderings[first].before or first in orderings[second].after


KINDS = st.sampled_from("abcdefgh")
ORDERINGS = st.dictionaries(
    KINDS,
    st.builds(
        Ordering,
        st.integers(-2, 2),
        st.lists(KINDS, max_size=2).map(tuple),
        st.lists(KINDS, max_size=2).map(tuple),
    ),
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(ORDERINGS, st.randoms(use_true_random=False))
def test_any_orderings_are_respected_and_give_one_order(
    orderings: dict[str, Ordering], random: object
) -> None:
    """Constraints hold; the order is the same however the kinds are listed; or there is a cycle."""
    try:
        order = cleanup_order(orderings)
    except OrderingCycleError as error:
        for first, second in itertools.pairwise(error.members):
            assert second in orderings[first].before or first in orderings[second].after
        return
    place = {kind: index for index, kind in enumerate(order)}
    shuffled = list(orderings.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random

    assert sorted(order) == sorted(orderings)
    for kind, ordering in orderings.items():
        assert all(place[kind] < place[other] for other in ordering.before if other in place)
        assert all(place[kind] > place[other] for other in ordering.after if other in place)
    assert cleanup_order(dict(shuffled)) == order
    assert cleanup_order(dict(reversed(orderings.items()))) == order


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.text(max_size=3), st.integers(-3, 3)))
def test_without_constraints_the_order_is_by_priority_and_name(priorities: dict[str, int]) -> None:
    """Descending (priority, name), and nothing else decides."""
    orderings = {kind: Ordering(priority) for kind, priority in priorities.items()}
    expected = [k for _, k in sorted(((p, k) for k, p in priorities.items()), reverse=True)]

    assert cleanup_order(orderings) == expected


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(ORDERINGS, st.randoms(use_true_random=False))
def test_pluggys_own_order_is_the_cleanup_order(
    orderings: dict[str, Ordering], random: object
) -> None:
    """It calls last-registered-first; that is the orchestrator's order, whatever came when."""
    try:
        expected = cleanup_order(orderings)
    except OrderingCycleError:
        return
    kinds = list(orderings)
    random.shuffle(kinds)  # type: ignore[attr-defined]  # a random.Random
    plugins = [
        ThingResource(
            k, orderings[k].priority, before=orderings[k].before, after=orderings[k].after
        )
        for k in kinds
    ]
    try:
        orchestrator = orchestrate(*plugins)
    except OrderingCycleError:
        pytest.fail("a part of an acyclic order is acyclic")
    registered = [name for name, _ in orchestrator.plugin_manager.list_name_plugin()]
    called = [impl.plugin_name for impl in orchestrator.plugin_manager.hook.cleanup.get_hookimpls()]

    assert list(orchestrator) == expected
    assert registered[::-1] == expected
    assert called[::-1] == expected


@pytest.mark.parametrize("priority", ["1", 1.0, None, True, (1,)])
def test_a_priority_that_is_no_int_is_refused(priority: object) -> None:
    """TypeError that shows the value."""
    with pytest.raises(TypeError, match="priority must be an int"):
        Ordering(priority)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("field", ["before", "after"])
@pytest.mark.parametrize("kinds", ["sockets", {"sockets"}, (1,), None, 7])
def test_before_and_after_are_tuples_of_names(field: str, kinds: object) -> None:
    """A bare string would name kinds letter by letter: refused."""
    with pytest.raises(TypeError, match=f"{field} must be a tuple of kind names"):
        Ordering(1, **{field: kinds})  # type: ignore[arg-type]  # that is the point


def test_a_list_of_names_becomes_a_tuple() -> None:
    """Frozen and comparable, however it was written."""
    listed = Ordering(1, before=["a"])  # type: ignore[arg-type]  # accepted all the same

    assert listed == Ordering(1, before=("a",))
    assert hash(listed) == hash(Ordering(1, before=("a",)))
