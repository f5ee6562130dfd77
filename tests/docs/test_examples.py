"""The examples run as they are, and so does what the page on performance names."""

from __future__ import annotations

import subprocess
import sys

import pytest
from documents import REPOSITORY

EXPECTED = {
    "tenants.py": ["0 errors", "red is gone", "blue says 'hello world'"],
    "leaks.py": ["1 resources freed", "was never released; acquired at", "in careless"],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_runs(name: str) -> None:
    """Without warnings, and it shows what it is there to show."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", REPOSITORY / "examples" / name],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ran.stderr == ""
    assert [text for text in EXPECTED[name] if text not in ran.stdout] == []


def test_every_example_is_tested() -> None:
    """None is forgotten here."""
    assert {path.name for path in (REPOSITORY / "examples").glob("*.py")} == set(EXPECTED)


def test_the_parts_of_a_termination_are_found() -> None:
    """`benchmarks/parts.py` names functions; one that is renamed would end it with a traceback."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", REPOSITORY / "benchmarks/parts.py", "3"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "terminate_process" in ran.stdout
