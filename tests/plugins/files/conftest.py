"""Fixtures of kind `files`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from probate import ResourceOrchestrator
from probate_files import FileResource

if TYPE_CHECKING:
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
