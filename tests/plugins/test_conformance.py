"""Every kind of this repository keeps the contract, by the kit that third parties use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conformance_kinds import DESCRIPTIONS
from kinds import KINDS

from probate.testing import conformance_cases

if TYPE_CHECKING:
    from probate.testing import ConformanceCase

CASES = {
    f"{name}-{case}": case
    for name, description in DESCRIPTIONS.items()
    for case in conformance_cases(description)
}


@pytest.mark.usefixtures("nothing_remains")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_kind_keeps_the_contract(case: ConformanceCase) -> None:
    """One check of one sort of thing; nothing remains of it either."""
    case()


def test_no_kind_is_left_out() -> None:
    """Each has at least one sort that is checked."""
    assert {name.partition("-")[0] for name in DESCRIPTIONS} == set(KINDS)
