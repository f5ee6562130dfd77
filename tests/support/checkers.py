"""mypy in tests, with what it knows from one of them for the next."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shared import shared

if TYPE_CHECKING:
    import pytest


def run_mypy(
    factory: pytest.TempPathFactory, cwd: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run it in a folder, one at a time: what all of them import, it looks at in the first.

    That takes most of the time, so that tests which come later may have to wait for it.
    """
    cache = shared(factory, "mypy", Path.mkdir)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return subprocess.run(
            [sys.executable, "-m", "mypy", "--cache-dir", str(cache), *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
