"""The conformance kit: a kind that keeps the contract passes, and each broken one is told why."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conformance_boxes import Boxes, describe
from conformance_mutants import MUTANTS, AdoptsAnything, CountsNoBytes, Mutant

from probate import Ordering, OwnershipTable, ResourceKind
from probate.testing import (
    ConformanceError,
    KindDescription,
    check_conformance,
    check_statically,
    conformance_cases,
)

if TYPE_CHECKING:
    from probate.testing import ConformanceCase


@pytest.mark.usefixtures("nothing_remains")
@pytest.mark.parametrize("case", conformance_cases(describe(Boxes)), ids=str)
def test_a_kind_that_keeps_the_contract_passes(case: ConformanceCase) -> None:
    """Written out, and with all that can be described: every check of the kit is made."""
    case()


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_what_is_broken_is_told_by_its_fault(mutant: Mutant) -> None:
    """Each fault fails the check that is about it, and the message names it."""
    cases = {str(each): each for each in conformance_cases(describe(mutant.kind))}

    with pytest.raises(ConformanceError) as caught:
        cases[mutant.check]()

    assert mutant.message in str(caught.value)
    assert len(caught.traceback) <= 2 or mutant.check == "static"


def test_each_check_has_a_mutant() -> None:
    """A check that nothing fails guards nothing."""
    checks = {str(each) for each in conformance_cases(describe(Boxes))}

    assert {mutant.check for mutant in MUTANTS} == checks


class BreaksTwoPromises(AdoptsAnything, CountsNoBytes):
    """Each in one check."""


def test_all_faults_are_told_at_once() -> None:
    """A line for each, with the check that found it."""
    with pytest.raises(ConformanceError, match=r"^kind 'boxes': ") as caught:
        check_conformance(describe(BreaksTwoPromises))

    checks = [fault.partition(": ")[0] for fault in caught.value.faults]
    assert checks == ["accounts_tell_what_was_done", "what_is_foreign_is_not_adopted"]
    assert str(caught.value).count("\n- ") == len(checks)


def test_what_is_not_described_is_not_checked() -> None:
    """A kind, how one is made, and what the kernel says, are enough."""
    whole = describe(Boxes)
    least: KindDescription[Any, Any] = KindDescription(
        kind=Boxes,
        make=whole.make,
        identify=whole.identify,
        is_alive=whole.is_alive,
        around=whole.around,
    )
    cases, fewer = conformance_cases(whole), conformance_cases(least)

    assert set(map(str, cases)) > set(map(str, fewer))
    assert len(fewer) > 15
    for case in fewer:
        case()


def test_what_the_kind_raises_is_told_with_what_was_checked() -> None:
    """Whatever it is; its traceback is kept."""

    def make(_kind: object, _pid: int) -> Any:
        raise KeyError("no such crate")

    broken = replace(describe(Boxes), make=make)
    cases = {str(each): each for each in conformance_cases(broken)}

    with pytest.raises(ConformanceError, match="owners_are_apart was checked, KeyError") as caught:
        cases["owners_are_apart"]()

    assert isinstance(caught.value.__cause__, KeyError)


def test_a_description_that_does_not_fit_is_told_from_a_kind_that_does_not() -> None:
    """What is dead when it was just made, by its `is_alive`, is no fault of a release."""
    dead = replace(describe(Boxes), is_alive=lambda _path: False)

    with pytest.raises(ConformanceError, match="1 of 1 gone when it was just made"):
        conformance_cases(dead)[1]()


def test_a_witness_may_have_far_to_go() -> None:
    """A server that is asked at each step of a cleanup would take longer than the cleanup may."""
    described = describe(Boxes)

    def is_alive(path: Any) -> bool:
        time.sleep(0.02)
        return described.is_alive(path)

    cases = conformance_cases(replace(described, is_alive=is_alive, patience=4))
    [case] = [each for each in cases if str(each) == "newest_is_released_first"]
    case()


def test_what_is_made_elsewhere_has_to_be_ended() -> None:
    """By who describes it, since nobody owns it."""
    with pytest.raises(ValueError, match="make_elsewhere needs an end"):
        replace(describe(Boxes), end=None)


async def _awaited(*_: object) -> None:
    """Nobody awaits it."""


@pytest.mark.parametrize(
    ("functions", "fault"),
    [
        ({"quiesce": lambda: None}, "the quiesce function has to take pid"),
        ({"usage": lambda: None}, "the usage function has to take pid"),
        ({"adopt": lambda thing: None}, "the adopt function has to take pid, resource"),
        ({"reclaim": lambda record: None}, "the reclaim function has to take record, dry_run"),
        ({"observe": lambda: None}, "the observe function has to take process"),
        ({"cleanup": _awaited}, "the cleanup function is a coroutine function"),
        ({"quiesce": 5}, "the quiesce function cannot be called: 5"),
    ],
)
def test_functions_that_can_never_be_called_are_told(functions: dict[str, Any], fault: str) -> None:
    """Of a `ResourceKind`: a reclaim that takes too little is met when a host has died."""

    def crates() -> ResourceKind:
        return ResourceKind(OwnershipTable("crates", print), Ordering(7), **functions)

    with pytest.raises(ConformanceError, match=fault):
        check_statically(crates)


def test_a_release_that_takes_nothing_is_told() -> None:
    """And what can be called like a function, and those of C, are not."""

    def crates(release: Any) -> ResourceKind:
        return ResourceKind(OwnershipTable("crates", release), Ordering(7))

    with pytest.raises(ConformanceError, match="the release function has to take resource"):
        check_statically(lambda: crates(lambda: None))

    check_statically(lambda: crates(os.close))
    check_statically(lambda: crates(_awaited))


def test_kinds_that_may_be_installed_elsewhere_can_be_named() -> None:
    """Those of the core's own extra are known; what else there may be is for the author to say."""

    class IsBeforeOthers(Boxes):
        before = ("gpus", "sockets")

    with pytest.raises(ConformanceError, match="names 'gpus', and no kind is called so"):
        check_statically(IsBeforeOthers)

    check_statically(IsBeforeOthers, other_kinds=["gpus"])


#: Makes all checks where neither pytest nor any kind of this repository can be imported.
WITHOUT_PYTEST = """
import sys
sys.modules["pytest"] = sys.modules["_pytest"] = None
from conformance_boxes import Boxes, describe
from probate.testing import check_conformance
check_conformance(describe(Boxes))
print(sorted(name for name in sys.modules if name.startswith("probate_")))
"""


def test_it_needs_neither_pytest_nor_this_repository() -> None:
    """Third parties have the core's wheel, and the test runner that they like."""
    support = Path(__file__).parents[2] / "support"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_PYTEST],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=support,
    )

    assert (ran.stdout, ran.stderr) == ("[]\n", "")
