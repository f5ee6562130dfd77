"""Fixtures of kind `rings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from probate_rings import IoUringManager, IoUringUnavailableError, RingResource

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_rings import ZeroCopyIpc


@pytest.fixture
def rings(manager: ProcessManager) -> RingResource:
    """The installed plugin, as the process manager has it."""
    return cast("RingResource", manager.orchestrator["rings"])


@pytest.fixture
def zerocopy(rings: RingResource) -> ZeroCopyIpc:
    """Its zero-copy half."""
    return rings.zerocopy


@pytest.fixture
def iouring(rings: RingResource) -> IoUringManager:
    """Its io_uring half; skips where the kernel has, or allows, no io_uring."""
    probe = IoUringManager()
    try:
        probe.close(1, probe.create_ring(1, 1))
    except IoUringUnavailableError as error:
        pytest.skip(str(error))
    return rings.iouring
