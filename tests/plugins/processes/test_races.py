"""Threads that spawn and adopt while others end: nothing survives, nobody is lost."""

from __future__ import annotations

import os
import subprocess
from collections import UserDict
from typing import TYPE_CHECKING

import processes_kernel as kernel
import pytest
from core_threads import at_once, frequent_switches
from processes_kernel import SLEEP

from probate import ProcessNotFoundError, ProcessTerminatedError
from probate.process import ManagerClosedError
from probate.system import is_subreaper
from probate_processes import Child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import ProcessManager
    from probate_processes import ProcessTreeManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

REFUSALS = (ProcessTerminatedError, ProcessNotFoundError)


def test_spawning_against_the_owners_end(
    manager: ProcessManager, trees: ProcessTreeManager, mark: str
) -> None:
    """Late registration leaked for ever (prior): each is refused, or ended with its owner."""
    for _ in range(50):
        owner = manager.create_process("owner")
        pid = owner.pid
        with frequent_switches():
            outcomes = at_once(
                [
                    lambda pid=pid: trees.spawn(pid, SLEEP),  # type: ignore[misc]  # mypy and lambdas
                    owner.terminate,
                    lambda pid=pid: trees.spawn(pid, SLEEP),  # type: ignore[misc]  # mypy and lambdas
                ]
            )
        spawned = [each for each in outcomes if isinstance(each, Child)]
        refused = [each for each in outcomes if isinstance(each, REFUSALS)]

        assert len(spawned) + len(refused) == 2, outcomes
        assert kernel.marked(mark) == set()
        assert all(each.returncode in {-9, -15} for each in spawned)
    assert kernel.children() == set() or not is_subreaper()


def test_spawning_while_the_manager_is_closed(manager: ProcessManager, mark: str) -> None:
    """It says so, at whatever moment: who replaces workers tells it from one that was ended."""

    class ClosingEnvironment(UserDict[str, str]):
        def __iter__(self) -> Iterator[str]:
            manager.close()
            return super().__iter__()

    for environment in (ClosingEnvironment(os.environ), None):
        with pytest.raises(ManagerClosedError):
            manager.spawn(SLEEP, env=environment)
        assert kernel.marked(mark) == set()


def test_adopting_against_the_owners_end(manager: ProcessManager, mark: str) -> None:
    """Each is ended with its owner, or refused and left alone; never something in between.

    One that was its owner's when that was ended is ended as well, and its adoption says so.
    """
    for _ in range(50):
        owner = manager.create_process("owner")
        with subprocess.Popen(SLEEP) as popen:
            with frequent_switches():
                outcomes = at_once([lambda: owner.adopt(popen), owner.terminate])  # noqa: B023  called at once
            if isinstance(outcomes[0], BaseException):
                assert isinstance(outcomes[0], REFUSALS), outcomes
                was_ended = isinstance(outcomes[0], ProcessTerminatedError)
                assert popen.poll() in ({None, -9, -15} if was_ended else {None})

                popen.kill()
            else:
                assert popen.wait(5) in {-9, -15}
        assert kernel.marked(mark) == set()
        assert kernel.cgroups() == set()
    assert not is_subreaper()


def test_two_threads_adopt_one_process(manager: ProcessManager) -> None:
    """It has one owner; the other one's end does nothing."""
    for _ in range(50):
        owners = [manager.create_process("one"), manager.create_process("two")]
        with subprocess.Popen(SLEEP) as popen:
            with frequent_switches():
                outcomes = at_once([lambda each=each: each.adopt(popen) for each in owners])  # type: ignore[misc]
            failed = [isinstance(outcome, BaseException) for outcome in outcomes]

            assert sorted(failed) == [False, True], outcomes

            owners[failed.index(True)].terminate()

            assert popen.poll() is None

            owners[failed.index(False)].terminate()

            assert popen.wait(5) in {-9, -15}


def test_ending_by_hand_by_itself_and_by_the_owner_at_once(
    manager: ProcessManager, trees: ProcessTreeManager, mark: str
) -> None:
    """Three ends of one process: it is settled once, and its status is known."""
    for _ in range(50):
        owner = manager.create_process("owner")
        child = trees.spawn(owner.pid, SLEEP)
        pid = owner.pid
        with frequent_switches():
            outcomes = at_once(
                [
                    lambda child=child: child.send_signal(9),  # type: ignore[misc]  # mypy and lambdas
                    owner.terminate,
                    lambda pid=pid, child=child: trees.kill(pid, child),  # type: ignore[misc]  # mypy and lambdas
                ]
            )

        assert child.exited.result(10) in {-9, -15}
        assert owner.result is not None
        assert owner.result.is_success, outcomes
        assert kernel.is_gone(child.os_pid)
    assert kernel.marked(mark) == set()
    assert kernel.cgroups() == set()
