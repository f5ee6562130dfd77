"""Units of systemd, as `systemd-analyze verify` judges them."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def check_unit(path: Path) -> None:
    """See that it finds no fault in a unit; skips the test where it cannot be had."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Failed to" in done.stderr:
        pytest.skip(f"systemd-analyze cannot run here: {done.stderr.strip()}")

    assert (done.returncode, done.stderr) == (0, "")
