"""What docs/guarantees.md says has a test for each cell, and its matrix is that of its tables."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import guarantees
from documents import REPOSITORY

if TYPE_CHECKING:
    import pytest


def test_every_cell_says_something_that_can_be_tested() -> None:
    """One of the situations, one of the outcomes, and at least one test."""
    found = guarantees.cells()

    assert [each for each in found if each.who not in guarantees.SITUATIONS] == []
    assert [each for each in found if not each.letters] == []
    assert [each for each in found if not each.tests] == []
    assert len(found) > 200
    assert len({each.thing for each in found}) > 30


def test_every_row_on_dead_hosts_has_a_test() -> None:
    """Who gives back, whoever dies; and what is found then."""
    found = guarantees.host_rows()

    assert [each for each in found if not each.tests] == []
    assert len(found) > 15


def test_every_test_that_is_named_is_collected(request: pytest.FixtureRequest) -> None:
    """By its file and its name, as pytest itself finds it: in this session, if it is about all."""
    rows = [each.tests for each in guarantees.cells()]
    rows += [each.tests for each in guarantees.host_rows()]
    named = sorted({test for tests in rows for test in tests})
    files = sorted({test.partition("::")[0] for test in named})

    assert [file for file in files if not (REPOSITORY / file).is_file()] == []
    collected = {item.nodeid for item in request.session.items}
    if not {nodeid.partition("::")[0] for nodeid in collected}.issuperset(files):
        collected = collected_elsewhere(files)
    collected |= {nodeid.partition("[")[0] for nodeid in collected}

    assert [test for test in named if test not in collected] == []


def collected_elsewhere(files: list[str]) -> set[str]:
    """What pytest collects from these files, in another interpreter."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return {line for line in ran.stdout.splitlines() if "::" in line}


def test_the_matrix_is_that_of_the_tables() -> None:
    """`python tests/support/guarantees.py` renews it."""
    assert guarantees.read_matrix() == guarantees.matrix()


def test_the_situations_are_explained() -> None:
    """Each, in the order of the matrix's columns."""
    text = guarantees.PAGE.read_text().partition("## At a glance")[2].partition("<!--")[0]

    assert re.findall(r"^\| ([\w ]+) \|", text, re.MULTILINE)[1:] == list(guarantees.SITUATIONS)
