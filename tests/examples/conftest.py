"""What the tests of the kinds below examples/plugins share: a PostgreSQL server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from postgres_server import PROGRAMS, server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def conninfo() -> Iterator[str]:
    """How to connect to a server that is there for these tests."""
    assert PROGRAMS is not None
    with server(PROGRAMS) as conninfo:
        yield conninfo
