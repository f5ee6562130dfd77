"""Fixtures for runs: names that nobody else has, and a folder with a path short enough."""

from __future__ import annotations

import secrets
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from run_things import remove_called

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def keys() -> Iterator[None]:
    """The keys that interrupt and quit do so: who is started in the background ignores them."""
    ignored = [
        number
        for number in (signal.SIGINT, signal.SIGQUIT)
        if signal.getsignal(number) is signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


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
