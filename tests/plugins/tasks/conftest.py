"""The task manager under test, on an orchestrator that serves nothing else."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tasks_loops import eventually

from probate import ResourceOrchestrator
from probate_tasks import TaskResource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import ProcessManager
    from probate_tasks import AsyncTaskManager


@pytest.fixture
def orchestrator() -> ResourceOrchestrator:
    return ResourceOrchestrator().register(TaskResource())


@pytest.fixture
def nothing_remains(nothing_remains: None) -> Iterator[None]:
    """As everywhere; but a thread whose call has just returned gets the moment that it needs."""
    yield
    eventually(lambda: not any(t.name.startswith("probate-tasks") for t in threading.enumerate()))


@pytest.fixture
def tasks(manager: ProcessManager) -> AsyncTaskManager:
    found: AsyncTaskManager = manager.orchestrator["tasks"].manager
    return found
