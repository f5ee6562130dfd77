"""Fixtures of kind `ipc`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ipc_peers import kernel_objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import ProcessManager
    from probate_ipc import IpcManager


@pytest.fixture
def ipc(manager: ProcessManager) -> IpcManager:
    """The installed plugin's manager, as the process manager has it."""
    found: IpcManager = manager.orchestrator["ipc"].manager
    return found


@pytest.fixture(autouse=True)
def no_ipc_object_remains() -> Iterator[None]:
    """The kernel has the same IPC objects after the test as before it."""
    before = kernel_objects()
    yield

    assert kernel_objects() == before
