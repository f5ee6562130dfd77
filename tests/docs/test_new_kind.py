"""docs/new-kind.md: its commands, as they stand, make a kind that is built, tested and listed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from typing import TYPE_CHECKING

import pytest
from distributions import build_wheels
from documents import REPOSITORY, code_blocks

from probate import __version__

if TYPE_CHECKING:
    from pathlib import Path

PAGE = REPOSITORY / "docs" / "new-kind.md"

#: pip of a venv that has none: the one that runs this, which need not be installed first.
PIP = '#!/bin/sh\nexec "{python}" -m pip --python "{venv}/bin/python" "$@"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing in it but a venv, and the core's wheel in `wheels`."""
    build_wheels(tmp_path / "wheels", REPOSITORY / "core")
    venv.create(tmp_path / "venv", with_pip=False)
    pip = tmp_path / "venv" / "bin" / "pip"
    pip.write_text(PIP.format(python=sys.executable, venv=tmp_path / "venv"))
    pip.chmod(0o755)
    # Also what the isolated build takes: the versions that all else is tested with.
    pinned = (REPOSITORY / "constraints.txt").read_text()
    (tmp_path / "constraints.txt").write_text(f"{pinned}probate=={__version__}\n")
    return tmp_path


@pytest.mark.timeout(300)
def test_the_commands_make_a_kind_that_is_tested_and_listed(folder: Path) -> None:
    """Word for word, in fewer than ten; each succeeds, and what the page says is printed."""
    [script] = code_blocks(PAGE, "sh")
    [listed] = code_blocks(PAGE, "text")
    ran = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=folder,
        env={
            **{name: os.environ[name] for name in os.environ if not name.startswith("PYTEST_")},
            "PATH": f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}",
            "PIP_CONSTRAINT": str(folder / "constraints.txt"),
            # Most of it is never run.
            "PIP_NO_COMPILE": "1",
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(script.splitlines()) < 10
    assert re.search(r"^=+ \d+ passed in ", ran.stdout, re.MULTILINE), ran.stdout
    assert ran.stdout.endswith(f"{listed}gpu-leases (gpu-leases 0.1.0): no faults\n")
    made = {
        str(path.relative_to(folder / "gpu-leases"))
        for path in (folder / "gpu-leases").rglob("*")
        if path.is_file() and "cache" not in str(path.relative_to(folder))
    }
    assert made == set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE))
