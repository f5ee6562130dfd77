"""Programs that daemonise before they could be contained, and shed all marks but their birth's."""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import early_daemons as early
import pytest
from processes_kernel import SLEEP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import ProcessManager

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    # From 3.12 on, os.fork() warns where there are several threads: these tests are about that.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

ROUNDS = 200 if os.environ.get("PROBATE_CHAOS") else 20


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """One that every user may look into."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("host", ["idle", "busy"])
@pytest.mark.parametrize("name", early.PROGRAMS)
def test_early_daemons_end_with_their_tree(
    manager: ProcessManager, folder: Path, name: str, host: str
) -> None:
    """Behind su -, runuser -l, sudo and `env -i` they got away (secator#1298, kai#456): none does.

    On a host that computes, too, which comes to itself long after the program has begun.
    """
    argv = early.program(name, folder)
    with early.computing_threads() if host == "busy" else nullcontext():
        assert early.survivors(manager, argv, ROUNDS) == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("who", ["ordinary user", "container's root"])
@pytest.mark.parametrize("name", early.PROGRAMS)
def test_early_daemons_of_other_users(
    manager: ProcessManager, folder: Path, name: str, who: str
) -> None:
    """Nor of a user without any rights, nor with the capabilities that Docker leaves to root."""
    if who == "ordinary user" and name in early.LOGINS:
        pytest.skip("it asks whoever is not root for a password")
    argv = early.program(name, folder)
    # What is imported late is imported now: another user may not read it.
    manager.spawn(SLEEP).terminate()
    early.as_user(who, lambda: _none_survives(manager, argv))


def _none_survives(manager: ProcessManager, argv: list[str]) -> None:
    assert early.survivors(manager, argv, ROUNDS) == 0
