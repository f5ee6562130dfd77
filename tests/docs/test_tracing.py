"""What docs/tracing.md says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from documents import REPOSITORY, code_blocks

if TYPE_CHECKING:
    from pathlib import Path

PAGE = REPOSITORY / "docs" / "tracing.md"


def plain(text: str) -> list[str]:
    """The lines, without numbers that are others each time."""
    text = re.sub(r"\(\d+ kinds\)", "(N kinds)", text)
    text = re.sub(r"^probate \d+", "probate N", text, flags=re.MULTILINE)
    return re.sub(r"in \d+\.\d+ ms", "in N ms", text).splitlines()


def test_the_example_writes_what_is_shown(tmp_path: Path) -> None:
    """Word for word, at the end of its one process."""
    (tmp_path / "job.py").write_text(code_blocks(PAGE, "python")[0])
    [shown] = code_blocks(PAGE, "text")
    probate = [sys.executable, "-m", "probate", "trace", "--", sys.executable, "job.py"]
    ran = subprocess.run(
        probate, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    # What it logs has a line of its own kind.
    written = plain("".join(re.findall(r"^probate \d.*\n", ran.stderr, re.MULTILINE)))

    assert ran.returncode == 0
    assert written[written.index(plain(shown)[0]) :][: len(plain(shown))] == plain(shown)
