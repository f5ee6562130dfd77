"""What docs/adoption.md says is taken is taken, and given back; what it says is refused is not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from adoption import document
from adoption.every import CASES
from adoption.trying import Row, tried

if TYPE_CHECKING:
    from pathlib import Path

    from adoption.case import Case

    from probate import ProcessManager

ROWS = {(row.group, row.name): row for row in document.read()}


def _id(case: Case) -> str:
    return re.sub(r"\W+", "-", f"{case.group} {case.name}").strip("-")


@pytest.mark.parametrize("case", CASES, ids=_id)
def test_a_row_is_so(case: Case, manager: ProcessManager, tmp_path: Path) -> None:
    """Taken by that kind and given back by its owner's end, or refused and left as it was.

    The kernel, or the object's library, is the witness; what is beside it works on. What is
    refused says why, and is given back by a function.
    """
    if case.library:
        pytest.importorskip(case.library)

    assert tried(case, manager, tmp_path) == ROWS[case.group, case.name]


def test_the_rows_are_what_was_tried() -> None:
    """In their order, each once; none was written by hand."""
    assert list(ROWS) == [(case.group, case.name) for case in CASES]
    assert len(ROWS) == len(document.read()) > 130


def test_the_figures_of_the_page_are_those_of_its_rows() -> None:
    """How many are tried, and how many taken."""
    text = " ".join(document.PAGE.read_text().split())
    [figures] = re.findall(r"makes (\d+) objects .*; (\d+) of them", text)

    assert figures == (str(len(ROWS)), str(sum(bool(row.kind) for row in ROWS.values())))


def test_what_is_refused_says_what_to_do() -> None:
    """By a function, by another object, or that there is nothing to give back."""
    ways = ("`release=", "adopt ", "nothing")
    refused: list[Row] = [row for row in ROWS.values() if not row.kind]

    assert [row for row in refused if not row.instead.startswith(ways)] == []
