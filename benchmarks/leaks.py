"""What `pytest --probate-leaks` takes of a suite's time: of one whose tests do next to nothing.

The target is 2 ms a test, or 5 % where that is more: of one that takes 40 ms it is the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from measure import Row, compare

#: Tests of a suite, and pairs of suites.
TESTS: Final = 400
PAIRS: Final = 7

#: Seconds a test that the look may take.
BUDGET: Final = 2e-3

SUITE: Final = f"""
import asyncio, socket, numpy, pytest

@pytest.mark.parametrize("number", range({TESTS}))
def test_it(number):
    with socket.socket():
        pass
"""

#: The plugins that are installed besides would be measured as well.
ENVIRONMENT: Final = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def seconds(folder: str, *arguments: str) -> float:
    """Run the suite; the processor time that one of its tests took, for it waits for nothing."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, env=ENVIRONMENT)
    after = os.times()
    used = after.children_user + after.children_system
    return (used - before.children_user - before.children_system) / TESTS


def rows() -> list[Row]:
    """All rows of this module."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_suite.py").write_text(SUITE)
        looked = compare(
            f"a test of {TESTS}, --probate-leaks",
            lambda: seconds(folder, "-p", "probate", "--probate-leaks"),
            "the same without",
            lambda: seconds(folder),
            pairs=PAIRS,
            warm_up=1,
        )
    taken = looked.ours - looked.theirs
    return [
        looked,
        Row(
            "what --probate-leaks takes of a test",
            taken,
            "the budget of one",
            BUDGET,
            taken / BUDGET,
            target=1.0,
        ),
    ]


if __name__ == "__main__":
    for row in rows():
        print(f"{row.what}: {row.ours * 1e3:.2f} ms, {row.peer} {row.theirs * 1e3:.2f} ms")
