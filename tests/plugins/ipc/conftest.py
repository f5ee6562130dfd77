"""Fixtures of kind `ipc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ipc_kernel import SORTS, MadeHere, Sort

from probate_ipc.kernelobject import KernelObject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import Process, ProcessManager
    from probate_ipc import IpcManager


@pytest.fixture
def ipc(manager: ProcessManager) -> IpcManager:
    """The installed plugin's manager, as the process manager has it."""
    found: IpcManager = manager.orchestrator["ipc"].manager
    return found


@pytest.fixture
def owner(manager: ProcessManager) -> Process:
    """Who creates."""
    return manager.create_process("owner")


@pytest.fixture
def user(manager: ProcessManager) -> Process:
    """Who attaches."""
    return manager.create_process("user")


@pytest.fixture
def pid(owner: Process) -> int:
    """A process, where one is enough."""
    return owner.pid


@pytest.fixture(params=SORTS)
def sort(request: pytest.FixtureRequest, ipc: IpcManager) -> Sort:
    """POSIX and System V objects, by the same names."""
    return SORTS[request.param](ipc)


@pytest.fixture(autouse=True)
def made_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeHere]:
    """What the test makes in the kernel; nothing of it is there after the test, failed or not."""
    made, init = MadeHere(), KernelObject.__init__

    def noting_init(self: KernelObject[Any], native: Any, *, is_owner: bool) -> None:
        init(self, native, is_owner=is_owner)
        made.note(native)

    monkeypatch.setattr(KernelObject, "__init__", noting_init)
    yield made

    assert made.remove_remaining() == set()
