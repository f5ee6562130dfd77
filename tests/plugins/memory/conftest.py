"""Fixtures of kind `memory`."""

from __future__ import annotations

import secrets
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sysv_ipc
from memory_kernel import own_sysv_segments, shm_names

from probate_memory import UntrackedSharedMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from probate import ProcessManager
    from probate_memory import MemoryManager


@pytest.fixture
def memory(manager: ProcessManager) -> MemoryManager:
    """The installed plugin's manager, as the process manager has it."""
    found: MemoryManager = manager.orchestrator["memory"].manager
    return found


@pytest.fixture
def name() -> Iterator[str]:
    """A name for a segment, which is removed at the end, whoever's it is."""
    name = f"test-{secrets.token_hex(8)}"
    yield name
    Path("/dev/shm", name).unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def remaining(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], set[str | int]]]:
    """Says which segments that the test has made here are in the kernel: at its end, none is.

    None of another OS process counts, such as of a test that runs beside this one.
    """
    names: set[str] = set()
    ids = own_sysv_segments()

    def noting(make: Callable[..., None]) -> Callable[..., None]:
        def note(shm: SharedMemory, *arguments: Any, **keywords: Any) -> None:
            make(shm, *arguments, **keywords)
            names.add(shm.name)

        return note

    for each in (SharedMemory, UntrackedSharedMemory):
        monkeypatch.setattr(each, "__init__", noting(each.__init__))
    yield lambda: names & shm_names() | own_sysv_segments() - ids
    left_names, left_ids = names & shm_names(), own_sysv_segments() - ids
    for left_name in left_names:
        Path("/dev/shm", left_name).unlink(missing_ok=True)
    for segment_id in left_ids:
        sysv_ipc.remove_shared_memory(segment_id)

    assert (left_names, left_ids) == (set(), set())
