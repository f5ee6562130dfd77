"""Fixtures of kind `memory`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sysv_ipc
from memory_kernel import own_sysv_segments, shm_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import ProcessManager
    from probate_memory import MemoryManager


@pytest.fixture
def memory(manager: ProcessManager) -> MemoryManager:
    """The installed plugin's manager, as the process manager has it."""
    found: MemoryManager = manager.orchestrator["memory"].manager
    return found


@pytest.fixture(autouse=True)
def no_segment_remains() -> Iterator[None]:
    """No test leaves a segment in the kernel, not even one that fails."""
    names, ids = shm_names(), own_sysv_segments()
    yield
    left_names, left_ids = shm_names() - names, own_sysv_segments() - ids
    for name in left_names:
        Path("/dev/shm", name).unlink(missing_ok=True)
    for segment_id in left_ids:
        sysv_ipc.remove_shared_memory(segment_id)

    assert (left_names, left_ids) == (set(), set())
