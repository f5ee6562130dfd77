"""The interpreter's resource tracker neither unlinks nor complains: its stderr is the witness."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from memory_kernel import run_script, said, script, shm_names

if TYPE_CHECKING:
    from pathlib import Path

    from probate import ProcessManager
    from probate_memory import MemoryManager

#: How a process comes by a segment, and leaves it; "NAME" is one that lives before and after.
CASES = {
    "creator, terminated": "s = memory.create_shared_memory(pid, size=9); process.terminate()",
    "creator, closed": "s = memory.create_shared_memory(pid, size=9); memory.close(pid, s)",
    "creator, unlinked natively": (
        "s = memory.create_shared_memory(pid, size=9); s.close(); s.unlink(); process.terminate()"
    ),
    "attacher": "s = memory.open_shared_memory(pid, NAME)",
    "attacher, terminated": "s = memory.open_shared_memory(pid, NAME); process.terminate()",
    "adopted creator": (
        "s = SharedMemory(create=True, size=9); process.adopt(s); process.terminate()"
    ),
    "adopted creator, unlinked natively": (
        "s = SharedMemory(create=True, size=9); process.adopt(s); s.close(); s.unlink()"
    ),
    "adopted attacher": "s = SharedMemory(NAME); process.adopt(s)",
    "adopted attacher, terminated": "s = SharedMemory(NAME); process.adopt(s); process.terminate()",
    "two objects of one segment": (
        "a, b = SharedMemory(create=True, size=9), SharedMemory(NAME); c = SharedMemory(a.name);"
        "d = SharedMemory(NAME); [process.adopt(each) for each in (a, b, c, d)];"
        "process.terminate()"
    ),
}


@pytest.fixture
def living(manager: ProcessManager, memory: MemoryManager) -> str:
    """The name of a segment that lives on."""
    return memory.create_shared_memory(manager.create_process("owner").pid, size=100).name


def test_the_tracker_has_nothing_to_say(living: str) -> None:
    """False "leaked" warnings and KeyErrors: keyed by owner and object, and told exactly once.

    An attaching process's exit unlinks nothing.
    """
    source = "\n".join(f"NAME = sys.argv[1]\n{case}" for case in CASES.values())
    # All in one interpreter, whose tracker they share, and each alone where it matters most.
    alone = ["attacher", "adopted attacher", "adopted creator, unlinked natively"]
    for script_source in [_fresh(source), *(f"NAME = sys.argv[1]\n{CASES[key]}" for key in alone)]:
        done = run_script(f"{script_source}\nsay(*names)", living)

        assert (done.returncode, done.stderr) == (0, ""), script_source
        assert shm_names() & set(done.stdout.split()) <= {living}
        assert living in shm_names()


def _fresh(source: str) -> str:
    """Each case with a process of its own."""
    return source.replace(
        "NAME = sys", "process = manager.create_process('x'); NAME = sys"
    ).replace("(pid, ", "(process.pid, ")


def test_without_us_the_interpreter_unlinks_what_it_merely_attached(living: str) -> None:
    """The claim that is guarded against, so that the tests above can fail (cpython#82300)."""
    done = run_script("s = SharedMemory(sys.argv[1])", living)

    assert "leaked" in done.stderr
    assert living not in shm_names()


@pytest.mark.parametrize("adopting", [False, True])
def test_an_attacher_that_is_killed_unlinks_nothing(living: str, adopting: bool) -> None:
    """SIGKILL of the attacher, whose tracker lives on to clean up after it: nothing to clean."""
    attach = "s = SharedMemory(sys.argv[1]); process.adopt(s)"
    if not adopting:
        attach = "memory.open_shared_memory(pid, sys.argv[1])"
    with script(f"{attach}; say('attached'); wait()", living) as other:
        assert said(other) == "attached"

        other.kill()
        # The end of its standard error: the tracker has it, too, so it has ended as well.
        _, stderr = other.communicate(timeout=30)

    assert stderr == ""
    assert living in shm_names()


def test_the_death_of_an_owner_that_is_terminated_unlinks() -> None:
    """Owner's does: from another OS process the name is gone, and the tracker is content."""
    with script(
        "s = memory.create_shared_memory(pid, size=9); say(s.name); wait(); process.terminate();"
        "say('terminated'); wait()"
    ) as owner:
        name = said(owner)
        assert name in shm_names()

        assert owner.stdin is not None
        owner.stdin.write("\n")
        owner.stdin.flush()
        assert said(owner) == "terminated"
        assert name not in shm_names()

        _, stderr = owner.communicate("\n", 30)

    assert stderr == ""


_CHILDREN = """
import multiprocessing
import sys
from multiprocessing.shared_memory import SharedMemory

from probate import ProcessManager, ResourceOrchestrator
from probate_memory import MemoryResource


def manage():
    orchestrator = ResourceOrchestrator().register(MemoryResource(), "memory")
    manager = ProcessManager.builder().with_resource_orchestrator(orchestrator).build()
    return orchestrator["memory"].manager, manager.create_process("any")


def child(shm, name, barrier, how):
    memory, process = manage()
    if how == "pickled":
        shm.buf[0] += 1
        process.adopt(shm)
    elif how == "attached":
        memory.open_shared_memory(process.pid, name)
    else:
        barrier.wait()
        native = SharedMemory(name)
        process.adopt(native)
    if how != "exits":
        process.terminate()


if __name__ == "__main__":
    memory, process = manage()
    context = multiprocessing.get_context("spawn")
    mine = memory.create_shared_memory(process.pid, size=10)
    adopted = SharedMemory(create=True, size=10)
    process.adopt(adopted)
    barrier = context.Barrier(2)
    hows = ["pickled", "attached", "adopted", "exits"]
    children = [
        context.Process(target=child, args=(shm, shm.name, barrier, how))
        for shm, how in zip([adopted, mine, adopted, adopted], hows)
    ]
    for each in children:
        each.start()
    for each in children:
        each.join()
    print([each.exitcode for each in children], adopted.buf[0], mine.buf[0])
    print(process.terminate())
"""


def test_multiprocessing_children_share_a_tracker_and_it_is_content(tmp_path: Path) -> None:
    """Children by spawn, which share the parent's tracker: pickled to, attached, adopted natively
    at the same time, terminated and merely exited: the owner's segments live on, and no word.
    """
    path = tmp_path / "children.py"
    path.write_text(_CHILDREN)
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=50, check=False
    )
    lines = done.stdout.splitlines()

    assert done.stderr == ""
    assert lines[0] == "[0, 0, 0, 0] 1 0"
    assert lines[1].endswith("2 resources freed, 20 bytes freed, 0 errors")


def test_telling_the_tracker_is_safe_from_many_threads() -> None:
    """A KeyError of the tracker would be on stderr; the segment's lock keeps tellers apart."""
    done = run_script(
        """
        import threading
        SHM = SharedMemory(create=True, size=9)
        process.adopt(SHM)
        barrier = threading.Barrier(4)

        def adopt():
            for _ in range(50):
                other = SharedMemory(SHM.name)
                barrier.wait()
                process.adopt(other)
                memory.close(pid, other)

        threads = [threading.Thread(target=adopt) for _ in range(4)]
        [each.start() for each in threads]
        [each.join() for each in threads]
        process.terminate()
        """
    )

    assert (done.returncode, done.stderr) == (0, "")
