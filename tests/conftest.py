"""Fixtures for all tests: an orchestrator with everything installed, and a manager on it."""

from __future__ import annotations

import gc
import os
import resource
import time
from typing import TYPE_CHECKING, Final

import pytest

from probate import ProcessManager, ResourceOrchestrator
from probate.journal.host import journal_of_host
from probate.plugins import discovery
from probate.testing.witness import KernelView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Descriptors that the suite may need at once, with its hundreds of pidfds and sockets.
DESCRIPTORS: Final = 4096


def pytest_configure() -> None:
    """Give the suite the same surroundings everywhere.

    The soft limit of descriptors, 1024 in a login shell, is raised as far as is allowed. The size
    of the terminal, which readline puts into the environment of parallel workers, is taken out of
    it: programs that are tested have, or have not, a terminal of their own.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))
    for name in ("LINES", "COLUMNS"):
        os.environ.pop(name, None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what only root may do, and say what that is."""
    marker = item.get_closest_marker("needs_root")
    if marker is not None and os.geteuid() != 0:
        pytest.skip(f"needs root: {marker.kwargs['reason']}")


@pytest.fixture(scope="module", autouse=True)
def frozen_heap() -> None:
    """What the tests so far have left is no garbage: `gc.collect` need not look at it again.

    That is the session itself, and in time all the libraries that tests import.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def kept_journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The journal of this process, and its reaper, are there for as long as the session.

    As in a host that is never without a manager: else a reaper would be started for each test that
    makes anything by a name. Hosts that a test starts have their own, in the same place.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBATE_STATE", str(tmp_path_factory.mktemp("state")))
        journal = journal_of_host(None, has_reaper=True)
        journal.arm()
        yield
        journal.close()


@pytest.fixture(scope="session")
def installed() -> list[discovery.Found]:
    """The entry points, looked for once: no test installs anything into this environment."""
    return discovery.scan()


@pytest.fixture
def orchestrator(installed: list[discovery.Found]) -> ResourceOrchestrator:
    """All installed kinds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discovery, "scan", lambda: installed)
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
    over = time.monotonic() + 5
    while (changes := before.changes()) and time.monotonic() < over:
        # What a thread keeps that is about to end is garbage only then.
        time.sleep(0.01)
        gc.collect()

    assert changes == []


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Prints figures where it takes long to come by them, however the test ends."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def tell_at_once(*figures: object) -> None:
        if "PROBATE_CHAOS" in os.environ:
            with capture.global_and_fixture_disabled():
                print(f"\n{request.node.name}:", *figures, end="", flush=True)  # noqa: T201  that is what it is for

    return tell_at_once
