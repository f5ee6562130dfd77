"""Owning processes: what they use, who is in them, handing them over, ending one by hand."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import processes_kernel as kernel
import psutil
import pytest
from processes_kernel import SLEEP, pids_in

from probate import NotOwnedError
from probate.system import is_subreaper
from probate_processes import treeregistry
from probate_processes.procfs import children_by_thread

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from probate import OsUsage, ProcessManager
    from probate_processes import ProcessTreeManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

FAMILY = """
(setsid sh -c 'echo $$ >> "$0"; exec sleep 300' "$0" &)
sh -c 'echo $$ >> "$0"; exec sleep 300' "$0" &
wait
sleep 300
"""


def test_usage_is_what_psutil_reads(
    manager: ProcessManager, trees: ProcessTreeManager, tmp_path: Path
) -> None:
    """Of all descendants together."""
    owner = manager.create_process("owner")
    child = trees.spawn(owner.pid, ["sh", "-c", FAMILY, str(tmp_path / "pids")])
    members = [child.os_pid, *pids_in(tmp_path / "pids", 2)]
    kernel.eventually(
        lambda: [psutil.Process(each).name() for each in members[1:]] == ["sleep"] * 2,
        "all are at rest",
    )
    seen = [psutil.Process(each) for each in members]

    def usage_of_all() -> OsUsage:
        usage = trees.usage(owner.pid).os
        assert usage is not None
        return usage

    # A program that has just been executed opens its libraries, one after the other.
    kernel.eventually(
        lambda: usage_of_all().fds == sum(each.num_fds() for each in seen), "as many descriptors"
    )
    usage = usage_of_all()
    assert usage.processes == 3
    assert usage.threads == sum(each.num_threads() for each in seen)
    # Looked at one after the other, while the kernel maps pages in and out.
    assert usage.rss == pytest.approx(sum(each.memory_info().rss for each in seen), rel=0.5)
    assert usage.cpu == pytest.approx(
        sum(each.cpu_times().user + each.cpu_times().system for each in seen), abs=0.1
    )
    assert set(trees.members(owner.pid, child)) == set(members)


def test_usage_of_those_who_own_none(manager: ProcessManager, trees: ProcessTreeManager) -> None:
    """Nothing, in figures."""
    usage = trees.usage(manager.create_process("owner").pid)

    assert usage.count == 0
    assert usage.os is not None
    assert usage.os.processes == usage.os.rss == 0


@pytest.mark.parametrize("kind", ["spawned", "adopted"])
def test_a_transferred_process_ends_with_its_new_owner(
    manager: ProcessManager, trees: ProcessTreeManager, kind: str
) -> None:
    """The old owner's end leaves it alone."""
    old, new = manager.create_process("old"), manager.create_process("new")
    popen = subprocess.Popen(SLEEP) if kind == "adopted" else None
    if popen is not None:
        old.adopt(popen)
    thing = popen or trees.spawn(old.pid, SLEEP)
    os_pid = popen.pid if popen else thing.os_pid  # type: ignore[union-attr]  # one or the other
    old.transfer(thing, new)
    result = old.terminate()

    assert result.stats.resources_freed == 0
    assert kernel.lives(os_pid)

    result = new.terminate()

    assert result.stats.by_type == {"processes": 1}
    if popen is not None:
        assert popen.wait(5) in {-9, -15}
    assert kernel.is_gone(os_pid)


def test_a_transferred_process_that_ends_by_itself(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """It drops out of its new owner's estate."""
    old, new = manager.create_process("old"), manager.create_process("new")
    child = trees.spawn(old.pid, ["sh", "-c", "read line; exit 4"], stdin=subprocess.PIPE)
    old.transfer(child, new)
    with pytest.raises(NotOwnedError, match=f"process {new.pid} does"):
        trees.kill(old.pid, child)
    assert child.stdin
    child.stdin.close()

    assert child.exited.result(10) == 4

    kernel.eventually(lambda: new.pid not in trees.table, "it dropped out")

    assert old.pid not in trees.table
    assert not is_subreaper()


def test_one_of_several_is_ended_by_hand(
    manager: ProcessManager, trees: ProcessTreeManager, tmp_path: Path
) -> None:
    """With all its descendants, at once; the others live, and nobody else may do it."""
    owner, other = manager.create_process("owner"), manager.create_process("other")
    child = trees.spawn(owner.pid, ["sh", "-c", FAMILY, str(tmp_path / "pids")])
    sibling = trees.spawn(owner.pid, SLEEP)
    members = [child.os_pid, *pids_in(tmp_path / "pids", 2)]
    with pytest.raises(NotOwnedError):
        trees.kill(other.pid, child)

    assert all(kernel.lives(each) for each in members)

    trees.kill(owner.pid, child)

    assert kernel.none_of(members)
    assert child.returncode == -9
    assert child.exited.result(0) == -9
    assert kernel.lives(sibling.os_pid)
    assert owner.terminate().stats.by_type == {"processes": 1}


def test_signals_by_the_handle(manager: ProcessManager, trees: ProcessTreeManager) -> None:
    """A bad number is refused; a dead process is told from a living one."""
    owner = manager.create_process("owner")
    child = trees.spawn(owner.pid, SLEEP)
    with pytest.raises(ValueError, match="no signal"):
        child.send_signal(4711)

    assert child.send_signal(0)
    assert child.send_signal(15)
    assert child.exited.result(10) == -15
    assert not child.send_signal(15)


def test_output_can_be_read_after_the_end(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """The pipe to it is closed with it, the pipes from it are the caller's."""
    owner = manager.create_process("owner")
    script = "echo err >&2; echo out; read line; exec sleep 300"
    child = trees.spawn(owner.pid, ["sh", "-c", script], stdin=-1, stdout=-1, stderr=-1)
    assert child.stdin
    assert child.stdout
    assert child.stderr
    with child.stdout, child.stderr:
        first = child.stdout.readline()
        owner.terminate()

        assert first == b"out\n"
        assert child.stdin.closed
        assert (child.stdout.read(), child.stderr.read()) == (b"", b"err\n")


def test_an_account_of_many_trees_takes_one_look_at_the_orphans(
    trees: ProcessTreeManager, manager: ProcessManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 240 trees each looked at the orphans of all, and `probate ps` left the host out."""
    script = "setsid -f sleep 300; exec sleep 300"
    spawned = [manager.spawn(["sh", "-c", script]) for _ in range(10)]
    owners = [process.pid for process in spawned]
    for process in spawned:
        # That looks, too.
        kernel.await_containment(process.os_pid or 0)
    kernel.eventually(lambda: _count_members(trees, owners) == 20, "each has its daemon")
    looks: list[int] = []

    def count(os_pid: int) -> dict[str, bytes]:
        looks.append(os_pid)
        return children_by_thread(os_pid)

    monkeypatch.setattr("probate_processes.treeregistry.children_by_thread", count)
    monkeypatch.setattr(treeregistry, "_RECENT", 60)
    monkeypatch.setattr(treeregistry, "_SWEEP_INTERVAL", 60)

    assert _count_members(trees, owners) == 20
    assert len(looks) <= 1


def _count_members(trees: ProcessTreeManager, owners: Sequence[int]) -> int:
    usages = [trees.usage(owner).os for owner in owners]
    return sum(usage.processes for usage in usages if usage is not None)
