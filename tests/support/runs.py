"""Commands run twice: bare, and by `probate run`; what comes of them is to be the same."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBATE: Final = Path(sys.executable).with_name("probate")

#: What stands before a command; nothing, so that a test is known to be right, and then us.
RUN: Final = (str(PROBATE), "run", "--")
ISOLATED: Final = (str(PROBATE), "run", "--isolate", "--")
bare_and_run: Final = pytest.mark.parametrize("prefix", [(), RUN], ids=["bare", "run"])


def run(
    prefix: tuple[str, ...],
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, with what it writes."""
    return subprocess.run(
        [*prefix, *command],
        check=False,
        timeout=50,
        env={**os.environ, **(env or {})},
        **{"capture_output": True, **options},
    )


def in_shell(
    prefix: tuple[str, ...], script: str, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run a script of sh, in which $run stands for what stands before a command."""
    return run((), "sh", "-c", script.replace("$run", shlex.join(prefix)), **options)
