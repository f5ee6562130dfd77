"""Fixtures for runs: names that nobody else has, and a folder with a path short enough."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from run_things import remove_called

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def name() -> Iterator[str]:
    """What a test calls what it makes, of which nothing is left, even if it fails."""
    name = f"probate-test-{secrets.token_hex(8)}"
    yield name
    remove_called(name)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="probate-") as folder:
        yield Path(folder)
