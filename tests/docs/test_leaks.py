"""What docs/leaks.md says is so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from documents import REPOSITORY, code_blocks
from leak_sessions import run

from probate.testing.describing import ADVICE
from probate.testing.leaks import _CACHE_FILLS, _ENDING

if TYPE_CHECKING:
    from pathlib import Path

PAGE = REPOSITORY / "docs" / "leaks.md"


def test_the_first_example_fails_as_shown(tmp_path: Path) -> None:
    """Word for word, but for numbers that are others each time."""
    (tmp_path / "test_it.py").write_text(code_blocks(PAGE, "python")[0])
    [shown] = code_blocks(PAGE, "text")
    told = run(tmp_path).left["test_serves"]
    told = re.sub(r"(fd |0\.1:)\d+", r"\1N", told)

    assert shown == f"ERROR at teardown of test_serves\n{told}"


def test_the_settings_and_markers_are_taken(tmp_path: Path) -> None:
    """By pytest, strictly."""
    (tmp_path / "pytest.ini").write_text(code_blocks(PAGE, "ini")[0])
    (tmp_path / "test_it.py").write_text(code_blocks(PAGE, "python")[1])
    session = run(tmp_path, "--strict-markers", "--strict-config", leaks="")

    assert session.counts == {"passed": 2}


def test_the_table_has_all_kinds() -> None:
    """And no other; what to do is known for each."""
    rows = re.findall(r"^\| (\w+) \| (?!what)", PAGE.read_text(), re.MULTILINE)

    assert sorted(rows) == sorted(ADVICE)


def test_the_numbers_are_those_of_the_code() -> None:
    """How many tests fill a cache, and how long what is ending gets."""
    text = PAGE.read_text()

    assert _CACHE_FILLS == 3
    assert "in a fourth test" in text
    assert _ENDING == 0.5
    assert "half a second later" in text
