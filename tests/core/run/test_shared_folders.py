"""A temporary folder that others have made folders in stays, whoever has made it: it is shared."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from run_fronts import RunFront, wait_for_end

from probate import Outcome, ResourceOrchestrator
from probate.settlement import sweep

if TYPE_CHECKING:
    from pathlib import Path

#: As pytest does: a folder for all runs of a user, and one in it for each; others go unnoticed.
SHARED = """
import os, pathlib, sys, tempfile, time
shared = pathlib.Path(tempfile.gettempdir(), "pytest-of-somebody")
shared.mkdir(mode=0o700, exist_ok=True)
for number in range(int(sys.argv[1])):
    (shared / f"ours-{number}" / "a").mkdir(parents=True)
    (shared / f"ours-{number}" / "file").touch()
os.chdir(shared)
os.mkdir("relative")
(shared / "file").touch()
(shared / "current").symlink_to(shared / "ours-0")
print("made", flush=True)
os.chdir("/")
time.sleep(1000)
"""


def shared(place: Path, state: Path, count: int = 2) -> tuple[RunFront, Path]:
    """A run that has made such a folder, and that."""
    command = [sys.executable, "-c", SHARED, str(count)]
    front = RunFront(*command, state=state, environment={"TMPDIR": str(place)})
    assert front.line() == "made"
    return front, place / "pytest-of-somebody"


def work_in(folder: Path) -> Path:
    """Have somebody else make a folder in it; return the file that is in that."""
    (folder / "theirs").mkdir()
    (folder / "theirs" / "data").write_text("theirs")
    return folder / "theirs" / "data"


def test_what_others_have_made_in_it_stays(tmp_path: Path, place: Path) -> None:
    """And the folder with it, which is reported, and goes as soon as there is nothing of theirs."""
    front, folder = shared(place, tmp_path)
    with front:
        theirs = work_in(folder)
        os.kill(front.command, signal.SIGKILL)
        account = front.account()

    assert theirs.read_text() == "theirs"
    (left,) = account.settled
    assert left.outcome == "refused"
    assert left.text == "its owner was not seen to make folders in it: theirs"
    theirs.unlink()
    theirs.parent.rmdir()
    (host,) = sweep(ResourceOrchestrator().discover(), str(tmp_path))
    assert [row.outcome for row in host.rows] == [Outcome.RELEASED]
    assert not folder.exists()


def test_it_goes_if_nobody_has(tmp_path: Path, place: Path) -> None:
    """With all that the program has made in it, by whatever path it has said."""
    front, folder = shared(place, tmp_path)
    with front:
        os.kill(front.command, signal.SIGKILL)
        account = front.account()

    assert {each.outcome for each in account.settled} == {"released"}
    assert not folder.exists()


@pytest.mark.parametrize("has_others", [False, True])
def test_a_sweep_knows_as_much(tmp_path: Path, place: Path, has_others: bool) -> None:
    """What is the program's stands in the journal."""
    front, folder = shared(place, tmp_path)
    with front:
        front.wait_for_rows(1)
        everyone = [front.process.pid, front.keeper, front.command]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for each in everyone:
                os.kill(each, number)
        front.process.wait()
        wait_for_end(*everyone)
        if has_others:
            work_in(folder)
        (host,) = sweep(ResourceOrchestrator().discover(), str(tmp_path))

    outcome = Outcome.REFUSED if has_others else Outcome.RELEASED
    assert [row.outcome for row in host.rows if row.kind == "files"] == [outcome]
    assert folder.exists() is has_others


def test_of_many_folders_not_all_are_known(tmp_path: Path, place: Path) -> None:
    """So that it is left, rather than that something of others goes."""
    front, folder = shared(place, tmp_path, 300)
    with front:
        os.kill(front.command, signal.SIGKILL)
        account = front.account()

    assert {each.outcome for each in account.settled} == {"refused"}
    assert len(list(folder.iterdir())) == 303
