"""Programs that daemonise before they could be contained, and shed all marks but their birth's."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import early_daemons as early
import pytest
from processes_kernel import SLEEP
from strangers import Strangers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import ProcessManager

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    # From 3.12 on, os.fork() warns where there are several threads: these tests are about that.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

ROUNDS = 200 if early.IS_CHAOS else 20


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """One that every user may look into."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("host", ["idle", "busy"])
@pytest.mark.parametrize("who", ["as it is", "ordinary user", "container's root"])
@pytest.mark.parametrize("name", early.PROGRAMS)
def test_early_daemons_end_with_their_tree(
    manager: ProcessManager, folder: Path, name: str, who: str, host: str, containment: str
) -> None:
    """Behind su -, runuser -l, sudo and `env -i` they got away (secator#1298, kai#456): none does.

    On a host that computes, too, which comes to itself long after the program has begun; of a user
    without any rights, and with the capabilities that Docker leaves to root. What this host starts
    beside them lives, though its daemons look like theirs.
    """
    if who == "ordinary user" and name in early.LOGINS:
        pytest.skip("it asks whoever is not root for a password")
    if who != "as it is" and host == "busy" and not early.IS_CHAOS:
        pytest.skip("in make soak")
    argv = early.program(name, folder)
    # What is imported late is imported now: another user may not read it.
    manager.spawn(SLEEP).terminate()
    early.as_user(who, lambda: _none_survives(manager, argv, host, containment))


def _none_survives(manager: ProcessManager, argv: list[str], host: str, containment: str) -> None:
    made = early.made_cgroup()
    assert (made is not None and made.remove()) == (containment == "cgroup")
    busy = early.computing_threads() if host == "busy" else nullcontext()
    # Where all wait for the interpreter, several wait at the same time.
    at_once = 4 if host == "busy" else 1
    with Strangers() as strangers, busy:
        lived = early.survivors(manager, argv, ROUNDS, at_once=at_once, strangers=strangers)

    assert lived == 0
    assert strangers.touched == 0
    assert strangers.started == 2 * ROUNDS // early.STRANGERS_EVERY
