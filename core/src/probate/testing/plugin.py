"""The pytest plugin: its options, marker and fixtures; nothing else is imported until asked for.

pytest imports it in every environment that has Probate (entry point group `pytest11`), and so it
imports nothing that pytest has not. `pytest --probate-leaks` has a test fail that leaves something
behind: docs/leaks.md.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import Process, ProcessManager, ResourceOrchestrator

#: The name of the marker, of the setting, and of what is registered when leaks are looked for.
NAME: Final = "probate_leaks"

_ON: Final = {"on", "true", "yes", "1"}
_OFF: Final = {"", "off", "false", "no", "0"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and settings."""
    group = parser.getgroup("probate", "what tests leave behind")
    group.addoption(
        "--probate-leaks",
        dest=NAME,
        action="store_const",
        const="on",
        help="fail tests that leave sockets, threads, files, processes and the like behind",
    )
    # An option of its own: one with an optional value would take the path after it for that.
    group.addoption(
        "--probate-leaks=confirm",
        dest=NAME,
        action="store_const",
        const="confirm",
        help="the same, but run such a test once more, and fail it only if it does so again",
    )
    parser.addini(NAME, "look for what tests leave behind: true, false or confirm", default="")
    parser.addini(
        f"{NAME}_ignore",
        "what all tests may leave behind: kinds, or patterns of what is reported",
        type="linelist",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Look for leaks if the command line or the configuration says so. Raises UsageError."""
    config.addinivalue_line(
        "markers",
        f"{NAME}(enabled=True, ignore=()): fail the test if it leaves anything behind, except for "
        "these kinds, or what matches these patterns; False: whatever it leaves",
    )
    wanted = config.getoption(NAME) or str(config.getini(NAME)).lower()
    if wanted in _ON or wanted == "confirm":
        _look_for_leaks(config, every_test=True, confirm=wanted == "confirm")
    elif wanted not in _OFF:
        raise pytest.UsageError(f"{NAME} is {wanted!r}, and not true, false or confirm")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Look for leaks of the marked tests, if there are any."""
    if not config.pluginmanager.has_plugin(NAME) and any(NAME in item.keywords for item in items):
        _look_for_leaks(config, every_test=False, confirm=False)


def _look_for_leaks(config: pytest.Config, *, every_test: bool, confirm: bool) -> None:
    if sys.platform != "linux":
        raise pytest.UsageError(f"{NAME} asks the kernel by /proc, which only Linux has")
    from probate.testing.leaks import LeakCheck

    check = LeakCheck(config, every_test=every_test, confirm=confirm)
    config.pluginmanager.register(check, NAME)


@pytest.fixture
def orchestrator() -> ResourceOrchestrator:
    """All installed kinds of resources."""
    from probate import ResourceOrchestrator

    return ResourceOrchestrator().discover()


@pytest.fixture
def process_manager(orchestrator: ResourceOrchestrator) -> Iterator[ProcessManager]:
    """A process manager without grace; whatever its processes own is given back after the test."""
    from probate import ProcessManager

    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0)
    with builder.build() as manager:
        yield manager


@pytest.fixture
def process(request: pytest.FixtureRequest, process_manager: ProcessManager) -> Process:
    """A process, named after the test, that owns what the test acquires or adopts for it."""
    return process_manager.create_process(request.node.name)
