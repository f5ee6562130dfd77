"""Fixtures of kind `sockets`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_sockets import SocketManager


@pytest.fixture
def sockets(manager: ProcessManager) -> SocketManager:
    """The installed plugin's manager, as the process manager has it."""
    found: SocketManager = manager.orchestrator["sockets"].manager
    return found
