"""Fixtures of kind `files`."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from probate import ResourceOrchestrator
from probate_files import FileResource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate import Process, ProcessManager
    from probate_files import FileManager


@pytest.fixture
def orchestrator() -> ResourceOrchestrator:
    """This kind alone: finding all that is installed takes longer than most tests here."""
    return ResourceOrchestrator().register(FileResource(), "files")


@pytest.fixture
def files(manager: ProcessManager) -> FileManager:
    """The plugin's manager, as the process manager has it."""
    found: FileManager = manager.orchestrator["files"].manager
    return found


@pytest.fixture
def process(manager: ProcessManager) -> Process:
    """Who owns the things of a test that needs one owner."""
    return manager.create_process("owner")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[Path, Path], None]]:
    """Mounts a path over another, until the test is over."""
    mounted: list[Path] = []

    def bind(source: Path, target: Path) -> None:
        done = subprocess.run(["mount", "--bind", source, target], check=False, capture_output=True)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(target)

    yield bind
    for each in mounted:
        subprocess.run(["umount", each], check=True)
