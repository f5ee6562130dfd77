"""The conformance kit: a kind that keeps the contract passes, and each broken one is told why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conformance_boxes import Boxes, describe
from conformance_mutants import MUTANTS, Mutant

from probate.testing import ConformanceError, conformance_cases

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
