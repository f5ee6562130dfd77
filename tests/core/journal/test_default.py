"""There is a journal without anybody asking, unless somebody says that there is to be none."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from journal_hosts import JournalHost, reaper_of, wait_until_gone
from reapers import reapers_of

from probate import ProcessManager, ResourceOrchestrator
from probate.journal.folders import host_folders
from probate.settings import Settings
from probate.settlement import read_accounts

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A host as anybody would write it; it makes a segment, if it is asked to, and waits.
PLAIN = """
orchestrator = ResourceOrchestrator().discover(only=["memory"])
manager = ProcessManager.builder().with_resource_orchestrator(orchestrator){options}.build()
process = manager.create_process("worker")
name = ""
if sys.argv[2:]:
    name = orchestrator["memory"].manager.create_shared_memory(process.pid, size=4096).name
say("made", name)
sys.stdin.read()
"""

#: Made by whoever needs a kind and no more than that.
KIND = "from probate import ResourceOrchestrator\n"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBATE_STATE", str(tmp_path / "state"))
        yield tmp_path / "state"


def host(state: Path, *arguments: str, options: str = "", **more: str) -> JournalHost:
    """Such a host, with these variables in its environment."""
    source = KIND + PLAIN.replace("{options}", options)
    return JournalHost(source, state, *arguments, env={**os.environ, **more})


def test_what_a_killed_host_made_is_given_back_without_an_option(state: Path) -> None:
    """The reaper is there with the first thing that outlives its maker."""
    with host(state, "segment") as found:
        name = found.line().split()[1]
        assert Path("/dev/shm", name).exists()

        found.kill()
        wait_until_gone(Path("/dev/shm", name))


def test_a_host_that_makes_nothing_named_has_neither_journal_nor_reaper(state: Path) -> None:
    """It pays nothing: no folder, no process."""
    with host(state) as found:
        assert found.line() == "made"

        assert not state.exists()
        children = Path(f"/proc/{found.process.pid}/task/{found.process.pid}/children")
        assert children.read_text() == ""


@pytest.mark.parametrize(
    ("options", "variables"),
    [(".without_journal()", {}), ("", {"PROBATE_JOURNAL": "off"}), ("", {"PROBATE_JOURNAL": "0"})],
)
def test_it_can_be_switched_off(state: Path, options: str, variables: dict[str, str]) -> None:
    """By the program, or by whoever runs it."""
    with host(state, "segment", options=options, **variables) as found:
        name = found.line().split()[1]
        assert not state.exists()

        found.kill()
        assert Path("/dev/shm", name).exists()
        Path("/dev/shm", name).unlink()


def test_the_program_has_the_last_word(state: Path) -> None:
    """As of all settings: what is given by hand takes precedence."""
    with host(state, "segment", options=".with_journal()", PROBATE_JOURNAL="off") as found:
        found.line()
        assert len(list(host_folders(str(state)))) == 1


def test_a_word_that_is_neither_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is a manager."""
    monkeypatch.setenv("PROBATE_JOURNAL", "maybe")
    with pytest.raises(ValueError, match="PROBATE_JOURNAL must be on or off, got 'maybe'"):
        ProcessManager.builder()


def test_settings_can_switch_it_off(state: Path) -> None:
    """From a file, too: `journal = false`."""
    orchestrator = ResourceOrchestrator().discover(only=["memory"])
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_settings(Settings(journal=False)).build() as manager:
        process = manager.create_process("worker")
        orchestrator["memory"].manager.create_shared_memory(process.pid, size=1)
        assert not state.exists()


def test_a_frozen_program_is_told_what_to_do(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no interpreter that could be its reaper: nothing is made, with the ways out."""
    source = KIND + PLAIN.replace("{options}", "").replace(
        "process = manager", "sys.frozen = True\nprocess = manager"
    )
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys\nsay = print\nfrom probate import *\n{source}",
            "",
            "s",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("probate.errors.JournalNotArmedError: no reaper could be started")
    for way in ("with_journal(reaper=False)", "without_journal()", "PROBATE_JOURNAL=off"):
        assert way in last


def test_a_host_has_one_reaper_for_all_who_need_one(state: Path) -> None:
    """The journal's guards what the scheduler stops, too; it goes with the last of the two."""
    source = """
from probate import SchedulingPolicy
manager = ProcessManager.builder().with_scheduler(SchedulingPolicy.ROUND_ROBIN).build()
manager.orchestrator["scheduler"].manager.configure("round_robin", 0.01, slots=1)
children = [manager.spawn(["sleep", "60"]) for _ in range(3)]
say(*(each.os_pid for each in children))
sys.stdin.readline()
manager.close()
say("closed")
sys.stdin.read()
"""
    with JournalHost(source, state, env={**os.environ}) as found:
        found.line()
        pid = reaper_of(found.process.pid)
        reaper = os.pidfd_open(pid)
        assert reapers_of(found.process.pid) == {pid}

        assert found.process.stdin is not None
        found.process.stdin.write("\n")
        found.process.stdin.flush()
        assert found.line() == "closed"
        assert select.select([reaper], [], [], 30)[0]
        os.close(reaper)


def test_a_dead_host_says_which_processes_it_had(state: Path) -> None:
    """By their keys, also of one that held nothing; one that had ended is not among them."""
    source = """
manager = ProcessManager.builder().build()
memory = manager.orchestrator["memory"].manager
parent = manager.create_process("tenant", key="tenant-7")
child = manager.create_process("job", parent, key="job-1")
idle = manager.create_process("idle", key="idle")
manager.create_process("unknown outside")
ended = manager.create_process("ended", key="ended")
memory.create_shared_memory(ended.pid, size=1)
ended.terminate()
memory.create_shared_memory(child.pid, size=1)
say("ready")
sys.stdin.read()
"""
    with JournalHost(source, state, env={**os.environ}) as found:
        assert found.line() == "ready"
        reaper = os.pidfd_open(reaper_of(found.process.pid))
        found.kill()
        assert select.select([reaper], [], [], 30)[0]
        os.close(reaper)

    (account,) = read_accounts(keep=True)
    owners = {each.key: each for each in account.owners}
    assert owners.keys() == {"tenant-7", "job-1", "idle"}
    assert owners["job-1"].parent == owners["tenant-7"].pid
    assert [row.owner for row in account.rows] == [owners["job-1"]]

    with ProcessManager.builder().build() as manager:
        assert manager.accounts() == [account]
        assert manager.accounts() == []
