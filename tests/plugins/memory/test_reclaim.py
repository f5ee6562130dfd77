"""POSIX shared memory whose owner has died; what becomes of a host's is in tests/core/journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal_estates import Estate

if TYPE_CHECKING:
    from pathlib import Path

ALL = Estate(
    "memory",
    """
    paths.append("/dev/shm/" + kind.create_shared_memory(process.pid, size=4096).name)
    """,
)


def test_a_killed_worker(tmp_path: Path) -> None:
    """The host removes the segment at once."""
    ALL.goes_with_a_killed_worker(tmp_path)
