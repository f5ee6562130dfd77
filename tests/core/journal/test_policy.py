"""What may be given back on which evidence: each cell of the table."""

from __future__ import annotations

import itertools

import pytest

from probate.journal.policy import is_of_tree, reason_to_leave


@pytest.mark.parametrize("settle", ["crash", "all", "report"])
@pytest.mark.parametrize("ended_normally", [True, False])
@pytest.mark.parametrize("holds_data", [True, False])
@pytest.mark.parametrize("evidence", ["made", "notified", "held", "name"])
def test_things(evidence: str, holds_data: bool, ended_normally: bool, settle: str) -> None:
    """What nobody saw made is left, always; data only goes after an abnormal end, or if asked."""
    reason = reason_to_leave(
        evidence, holds_data=holds_data, ended_normally=ended_normally, settle=settle
    )
    if evidence in {"held", "name"}:
        assert evidence in reason
    elif settle == "report":
        assert "--settle report" in reason
    elif (holds_data, ended_normally, settle) == (True, True, "crash"):
        assert "--settle all" in reason
    else:
        assert reason == ""


ALWAYS = ["is_pinned", "descends", "has_tag"]


@pytest.mark.parametrize("mark", ALWAYS)
def test_processes_by_what_cannot_be_carried_off(mark: str) -> None:
    assert is_of_tree(**{mark: True})


def test_processes_by_their_environment() -> None:
    """It counts with a filter, or, where the run has none, in an orphan that came to the front."""
    for is_filtered, has_run_filter, is_orphan in itertools.product([False, True], repeat=3):
        is_told = is_of_tree(
            has_nonce=True,
            is_filtered=is_filtered,
            has_run_filter=has_run_filter,
            is_orphan=is_orphan,
        )
        assert is_told is (is_filtered if has_run_filter else is_orphan)
        assert not is_of_tree(
            is_filtered=is_filtered, has_run_filter=has_run_filter, is_orphan=is_orphan
        )


@pytest.mark.parametrize(
    "missing", ["is_filtered", "has_run_filter", "is_orphan", "is_front_alone"]
)
def test_an_orphan_under_the_filter_needs_no_other_mark(missing: str) -> None:
    """Where the front has no children but the tree's; else it may be of whoever started that."""
    marks = ["is_filtered", "has_run_filter", "is_orphan", "is_front_alone"]

    assert is_of_tree(**dict.fromkeys(marks, True))
    assert not is_of_tree(**{each: each != missing for each in marks})
