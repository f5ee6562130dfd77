"""Fixtures of kind `rings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from probate_rings import (
    IoUringManager,
    IoUringUnavailableError,
    RingResource,
    binding,
    syscalls,
)

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
def package(monkeypatch: pytest.MonkeyPatch) -> binding.Binding:
    """The package liburing, or what stands in for it; where it is not installed, that too."""
    try:
        return binding.load()
    except IoUringUnavailableError:
        loaded = cast("binding.Binding", syscalls)
        monkeypatch.setattr(binding, "load", lambda: loaded)
        return loaded


@pytest.fixture
def iouring(rings: RingResource, package: binding.Binding) -> IoUringManager:
    """Its io_uring half; skips where the kernel has, or allows, no io_uring."""
    probe = IoUringManager()
    try:
        probe.close(1, probe.create_ring(1, 1))
    except IoUringUnavailableError as error:
        pytest.skip(str(error))
    return rings.iouring
