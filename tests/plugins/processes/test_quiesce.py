"""Asking a tree to stop: who is asked, when it is over, and what the account says."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import processes_kernel as kernel
import pytest
from processes_kernel import SLEEP, pids_in

from probate import ProcessManager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from probate import ResourceOrchestrator
    from probate_processes import ProcessTreeManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

#: Far longer than anything takes here: whoever waits for its end fails.
GRACE = 30.0

#: On SIGTERM, says so and ends. $0.ready is there when the handler is.
POLITE = 'trap \'echo asked >> "$0"; exit 0\' TERM; echo > "$0.ready"; while :; do sleep 0.02; done'


@pytest.fixture
def manager(orchestrator: ResourceOrchestrator) -> Iterator[ProcessManager]:
    """A process manager whose deadline is later than the end of any grace here."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_grace(0).with_deadline(2 * GRACE).build() as manager:
        yield manager


def polite(path: Path) -> list[str]:
    return ["sh", "-c", POLITE, str(path)]


def until_ready(path: Path) -> None:
    kernel.eventually(path.with_name(f"{path.name}.ready").exists, "its handler is set")


def test_a_stopped_worker_runs_its_handler(manager: ProcessManager, tmp_path: Path) -> None:
    """A SIGSTOPped process never saw SIGTERM (prior): it is continued, and does."""
    process = manager.spawn(polite(tmp_path / "said"))
    until_ready(tmp_path / "said")
    assert process.os_pid is not None
    os.kill(process.os_pid, 19)
    kernel.eventually(lambda: kernel.state(process.os_pid or 0) == "T", "it is stopped")
    result = process.terminate(GRACE)

    assert (tmp_path / "said").read_text() == "asked\n"
    assert process.returncode == 0
    assert result.is_success
    assert result.stats.by_type == {"processes": 1}
    assert result.stats.duration_seconds < GRACE


def test_the_whole_tree_is_asked(manager: ProcessManager, tmp_path: Path) -> None:
    """Also who left the session, and whose parents are gone; the grace ends with the last.

    At once, with stop="tree": this leader waits for the others.
    """
    script = f"""
    (setsid sh -c {shlex.quote(POLITE)} "$0/daemon" &)
    sh -c {shlex.quote(POLITE)} "$0/child" &
    trap 'wait; echo asked >> "$0/leader"; exit 0' TERM; echo > "$0/leader.ready"
    while :; do sleep 0.02; done
    """
    process = manager.spawn(["sh", "-c", script, str(tmp_path)], stop="tree")
    for name in ("daemon", "child", "leader"):
        until_ready(tmp_path / name)
    result = process.terminate(GRACE)

    said = {path.name: path.read_text() for path in tmp_path.iterdir() if path.suffix == ""}
    assert said == dict.fromkeys(("daemon", "child", "leader"), "asked\n")
    assert result.stats.by_type == {"processes": 1}
    assert result.stats.duration_seconds < GRACE / 2


#: Two workers, one of them in a session of its own, that say so when they are asked to stop.
WORKERS = f"""
(setsid sh -c {shlex.quote(POLITE)} "$0/daemon" &)
sh -c {shlex.quote(POLITE)} "$0/child" & child=$!
"""


def said_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix == ""}


def until_all_ready(folder: Path) -> None:
    for name in ("daemon", "child", "leader"):
        until_ready(folder / name)


@pytest.mark.parametrize("is_adopted", [False, True], ids=["spawned", "adopted"])
def test_the_leader_is_asked_first_and_may_need_the_others(
    manager: ProcessManager, tmp_path: Path, is_adopted: bool
) -> None:
    """SIGTERM to all of it broke a warm shutdown (celery#9168, celery#1058).

    This leader gives its worker something to do before it lets it go; the other one is asked when
    the leader is gone.
    """
    end = 'kill -TERM $child; wait $child; echo "in order" >> "$0/leader"; exit 0'
    script = f"""
    while [ ! -e "$0/go.now" ]; do sleep 0.005; done
    {WORKERS}
    on_term() {{ sleep 0.2; cp "$0/child" "$0/child.before" 2>/dev/null; {end}; }}
    trap on_term TERM; echo > "$0/leader.ready"
    while :; do sleep 0.02; done
    """
    argv = ["sh", "-c", script, str(tmp_path)]
    process = manager.create_process("owner") if is_adopted else manager.spawn(argv)
    popen = subprocess.Popen(argv) if is_adopted else None
    if popen is not None:
        process.adopt(popen)
    (tmp_path / "go.now").touch()
    until_all_ready(tmp_path)
    result = process.terminate(GRACE)

    assert not (tmp_path / "child.before").exists()
    assert said_in(tmp_path) == {
        "daemon": "asked\n",
        "child": "asked\n",
        "leader": "in order\n",
    }
    assert result.stats.duration_seconds < GRACE / 2
    if popen is not None:
        assert popen.wait(15) == 0


def test_the_others_are_asked_when_the_leader_is_gone(
    manager: ProcessManager, tmp_path: Path
) -> None:
    """It leaves them alone; they get what is left of the grace."""
    script = f'{WORKERS} echo > "$0/leader.ready"; while :; do sleep 0.02; done'
    process = manager.spawn(["sh", "-c", script, str(tmp_path)])
    until_all_ready(tmp_path)
    result = process.terminate(GRACE)

    assert said_in(tmp_path) == {"daemon": "asked\n", "child": "asked\n"}
    assert process.returncode == -15
    assert result.stats.duration_seconds < GRACE / 2


def test_the_others_are_asked_when_half_of_the_grace_is_over(
    manager: ProcessManager, tmp_path: Path
) -> None:
    """A leader that does not go does not keep them from ending in good order."""
    script = f"""{WORKERS}
    trap '' TERM; echo > "$0/leader.ready"; while :; do sleep 0.02; done"""
    process = manager.spawn(["sh", "-c", script, str(tmp_path)])
    until_all_ready(tmp_path)
    since = time.time()
    process.terminate(2)

    assert said_in(tmp_path) == {"daemon": "asked\n", "child": "asked\n"}
    assert min((tmp_path / name).stat().st_mtime for name in said_in(tmp_path)) - since > 0.95
    assert process.returncode == -9


def test_without_grace_nobody_is_asked(manager: ProcessManager, tmp_path: Path) -> None:
    """0 is no time: no handler begins what it cannot end.

    One that has no handler would be ended by SIGTERM, before SIGKILL comes.
    """
    plain, handling = manager.spawn(SLEEP), manager.spawn(polite(tmp_path / "said"))
    until_ready(tmp_path / "said")
    results = [process.terminate(0) for process in (plain, handling)]

    assert said_in(tmp_path) == {}
    assert (plain.returncode, handling.returncode) == (-9, -9)
    assert [result.is_success for result in results] == [True, True]


def test_who_comes_during_the_grace_is_asked_too(manager: ProcessManager, tmp_path: Path) -> None:
    """A worker that leaves a successor behind when asked: that one is asked when it is alone."""
    handler = f"""
    sh -c {shlex.quote(POLITE)} "$0" &
    while [ ! -e "$0.ready" ]; do sleep 0.02; done
    exit 0
    """
    script = f"""
    on_term() {{ {handler} }}
    trap on_term TERM
    echo > "$0.leader.ready"
    while :; do sleep 0.02; done
    """
    process = manager.spawn(["sh", "-c", script, str(tmp_path / "said")])
    until_ready(tmp_path / "said.leader")
    result = process.terminate(GRACE)

    assert (tmp_path / "said").read_text() == "asked\n"
    assert result.is_success
    assert result.stats.duration_seconds < GRACE


def test_the_grace_is_for_those_who_ignore_it(manager: ProcessManager, tmp_path: Path) -> None:
    """It is given in full, and then they are killed."""
    script = "trap '' TERM; echo > \"$0.ready\"; while :; do sleep 0.02; done"
    process = manager.spawn(["sh", "-c", script, str(tmp_path / "worker")])
    until_ready(tmp_path / "worker")
    since = time.monotonic()
    result = process.terminate(0.3)

    assert time.monotonic() - since >= 0.3
    assert process.returncode == -9
    assert result.is_success


def test_what_died_by_itself_is_not_counted(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """Counts tell what was done: nothing was, here."""
    process = manager.spawn(["sh", "-c", "exit 3"])
    result = manager.wait(process.pid, 15)
    owner = manager.create_process("owner")
    child = trees.spawn(owner.pid, ["sh", "-c", "kill -KILL $$"])
    code = child.exited.result(15)
    kernel.eventually(lambda: owner.pid not in trees.table, "it dropped out")

    assert (process.returncode, code) == (3, -9)
    assert result.stats.resources_freed == 0
    assert owner.terminate().stats.resources_freed == 0


def test_several_trees_share_one_grace(
    manager: ProcessManager, trees: ProcessTreeManager, tmp_path: Path
) -> None:
    """All are asked before any is waited for, adopted ones too."""
    owner = manager.create_process("owner")
    for number in range(4):
        trees.spawn(owner.pid, polite(tmp_path / str(number)))
    popen = subprocess.Popen(polite(tmp_path / "adopted"))
    owner.adopt(popen)
    names = ["0", "1", "2", "3", "adopted"]
    for name in names:
        until_ready(tmp_path / name)
    result = owner.terminate(GRACE)

    assert [(tmp_path / name).read_text() for name in names] == ["asked\n"] * 5
    assert result.stats.by_type == {"processes": 5}
    assert result.stats.duration_seconds < GRACE
    assert popen.wait(5) == 0


def test_a_stopped_python_worker(manager: ProcessManager, tmp_path: Path) -> None:
    """Done-when: a stopped worker still gets to run its SIGTERM handler, a Python one too."""
    code = """
import os, pathlib, signal, sys
path = pathlib.Path(sys.argv[1])
def leave(*_):
    path.write_text("asked")
    sys.exit(7)
signal.signal(signal.SIGTERM, leave)
path.with_name(path.name + ".ready").write_text(f"{os.getpid()}\\n")
os.kill(os.getpid(), signal.SIGSTOP)
signal.pause()
"""
    process = manager.spawn([sys.executable, "-SEc", code, str(tmp_path / "said")])
    (os_pid,) = pids_in(tmp_path / "said.ready")
    kernel.eventually(lambda: kernel.state(os_pid) == "T", "it is stopped")
    process.terminate(GRACE)

    assert (tmp_path / "said").read_text() == "asked"
    assert process.returncode == 7
