"""Fixtures for the tests of memory maps."""

from __future__ import annotations

import mmap
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from probate import ProcessManager
    from probate_mmap import MmapManager


@pytest.fixture
def maps(manager: ProcessManager) -> MmapManager:
    """The map manager in use."""
    found: MmapManager = manager.orchestrator["mmap"].manager
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of three pages, full of dots."""
    path = tmp_path / "file.bin"
    path.write_bytes(b"." * 3 * mmap.PAGESIZE)
    return path


@pytest.fixture
def disk_path(path: Path) -> Path:
    """As `path`, on a file system that has a disk behind it."""
    if subprocess.check_output(["stat", "-fc", "%T", path]) == b"tmpfs\n":
        pytest.skip("the temporary directory is on a tmpfs, which has nothing to write to")
    return path
