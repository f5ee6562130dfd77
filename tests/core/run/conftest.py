"""Fixtures for runs: names that nobody else has, and a folder with a path short enough."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def name() -> str:
    """What a test calls what it makes."""
    return f"probate-test-{secrets.token_hex(8)}"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="probate-") as folder:
        yield Path(folder)
