"""Fixtures for all tests: an orchestrator with everything installed, and a manager on it."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from probate import ProcessManager, ResourceOrchestrator
from probate.kernel import KernelView

if TYPE_CHECKING:
    from collections.abc import Iterator


#: What makes, or counts, things that the whole machine shares and that show no maker: IPC objects,
#: shared memory. Tests of these folders never run at the same time.
MACHINE_WIDE = ("cli", "docs", "scenarios", "plugins/ipc", "plugins/memory")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a worker of pytest-xdist run a file as a whole, and one alone what is machine-wide."""
    for item in items:
        file = item.path.relative_to(Path(__file__).parent)
        is_machine_wide = any(file.is_relative_to(folder) for folder in MACHINE_WIDE)
        item.add_marker(pytest.mark.xdist_group("machine" if is_machine_wide else str(file)))


@pytest.fixture
def orchestrator() -> ResourceOrchestrator:
    """All installed kinds."""
    return ResourceOrchestrator().discover()


@pytest.fixture
def manager(orchestrator: ResourceOrchestrator) -> Iterator[ProcessManager]:
    """A process manager without grace, so that nothing waits unless a test wants it to."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_grace(0).with_deadline(10).build() as manager:
        yield manager


@pytest.fixture
def nothing_remains() -> Iterator[None]:
    """The kernel's view of this process is the same after the test as before it."""
    gc.collect()
    before = KernelView.take()
    yield
    gc.collect()
    differences = before.differences(KernelView.take())

    assert differences == []
