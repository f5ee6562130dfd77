"""Interpreters of their own, and forked children, for tests; both within a time limit."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

_SUPPORT = Path(__file__).resolve().parent


def run_script(source: str, *, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """Run Python source in a fresh interpreter, where warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": str(_SUPPORT)},
    )


def in_forked_child(function: Callable[[], object], *, timeout: float = 10) -> str:
    """Call `function` in a forked child; return the repr of its answer, or its traceback.

    Fails the test if the child takes longer than `timeout` seconds.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            try:
                answer = repr(function())
            except BaseException:
                answer = traceback.format_exc()
            os.write(writer, answer.encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    try:
        readable, _, _ = select.select([reader], [], [], timeout)
        if not readable:
            os.kill(child, signal.SIGKILL)
            pytest.fail(f"the forked child was still at it after {timeout} s")
        return os.read(reader, 1 << 16).decode()
    finally:
        os.close(reader)
        os.waitpid(child, 0)
