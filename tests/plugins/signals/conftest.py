"""Fixtures of kind `signals`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_signals import SignalManager


@pytest.fixture
def signals(manager: ProcessManager) -> SignalManager:
    """The installed plugin's manager, as the process manager has it."""
    found: SignalManager = manager.orchestrator["signals"].manager
    return found
