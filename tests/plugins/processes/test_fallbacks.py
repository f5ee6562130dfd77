"""Kernels and sandboxes without the best marks: the next ones hold, and what is lost is known."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import early_daemons as early
import pytest
from children import exit_code_of_fork
from denied_calls import deny
from processes_kernel import SLEEP

from probate_processes.launcher import launchers
from probate_processes.marks import UNWORN
from probate_processes.threadmarks import Worn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import ProcessManager

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    # From 3.12 on, os.fork() warns where there are several threads: these tests are about that.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

CHAOS = bool(os.environ.get("PROBATE_CHAOS"))
ROUNDS = 200 if CHAOS else 10
PROGRAMS = list(early.PLAIN) if CHAOS else ["env -i", "static C"]

#: What the kernel refuses, and which numbers are left then, of slice, hint and slack.
DENIED: dict[str, tuple[tuple[str, ...], tuple[bool, bool, bool]]] = {
    "no slices, as before Linux 6.12": (("sched_setattr",), (False, True, False)),
    "no hints": (("ioprio_set",), (True, False, False)),
    "neither, as before Linux 6.5": (("sched_setattr", "ioprio_set"), (False, False, True)),
    "none": (("sched_setattr", "ioprio_set", "prctl"), (False, False, False)),
}


def in_child(manager: ProcessManager, act: Callable[[], None]) -> None:
    # What is imported late is imported now: another user may not read it.
    manager.spawn(SLEEP).terminate()
    assert exit_code_of_fork(act) == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("what", DENIED)
def test_what_is_left_holds(manager: ProcessManager, tmp_path: Path, what: str, name: str) -> None:
    """Early daemons end with their tree by whatever mark there is; without any, by the tag."""
    calls, expected = DENIED[what]
    argv = early.program(name, tmp_path)
    if what.startswith("neither") and os.geteuid() != 0:
        expected = (False, False, False)

    def child() -> None:
        deny(*calls)
        process = manager.spawn(SLEEP)
        worn = Worn.by(process.os_pid or 0)
        assert tuple(number != 0 for number in worn) == expected
        assert (launchers.first() is not None) == any(expected)
        process.terminate()
        assert early.survivors(manager, argv, ROUNDS) == 0

    in_child(manager, child)


def test_without_the_rights_to_read_slacks_there_are_none(manager: ProcessManager) -> None:
    """With Docker's capabilities a slack could be given, and nobody could see it."""

    def child() -> None:
        deny("sched_setattr", "ioprio_set")
        early.drop_capabilities()
        process = manager.spawn(SLEEP)
        assert Worn.by(process.os_pid or 0) == UNWORN
        assert launchers.first() is None
        assert process.terminate().is_success

    if os.geteuid() != 0:
        pytest.skip("only root has capabilities to drop")
    in_child(manager, child)
