"""Shared memory made elsewhere: who owns it, who uses it."""

from __future__ import annotations

import time
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import ShareableList, SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sysv_ipc
from children import exit_code_of_fork
from memory_kernel import descriptors_of, said, script, shm_names, sysv_segments

from probate import AlreadyOwnedError, ProcessTerminatedError, UnadoptableError
from probate_memory import UntrackedSharedMemory, posixsegment, sysvsegment

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_memory import MemoryManager


@pytest.fixture(autouse=True)
def _tracked(request: pytest.FixtureRequest) -> None:
    """The tracker runs before the look at what there is: it is the interpreter's, not ours."""
    resource_tracker.ensure_running()
    request.getfixturevalue("nothing_remains")


def test_the_creating_object_makes_an_owner_and_another_a_user(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Owner is not user, and the object knows which of the two it is."""
    owner, user = manager.create_process("owner"), manager.create_process("user")
    shm = SharedMemory(create=True, size=100)
    attached = SharedMemory(shm.name)
    user.adopt(attached)
    owner.adopt(shm)

    assert manager.terminate_process(user.pid).stats.bytes_freed == 0
    assert shm.name in shm_names()
    assert manager.terminate_process(owner.pid).stats.bytes_freed == 100
    assert shm.name not in shm_names()
    assert descriptors_of(shm.name) == 0


def test_the_role_can_be_said(manager: ProcessManager, memory: MemoryManager) -> None:
    """A creator may stay a mere user, and who attached may become the owner."""
    owner, user = manager.create_process("owner"), manager.create_process("user")
    shm = SharedMemory(create=True, size=100)
    attached = SharedMemory(shm.name)
    memory.adopt_shared_memory(user.pid, shm, as_owner=False)
    memory.adopt_shared_memory(owner.pid, attached, as_owner=True, wipe=True)
    manager.terminate_process(user.pid)

    assert shm.name in shm_names()

    manager.terminate_process(owner.pid)

    assert shm.name not in shm_names()


def test_a_shareable_list_is_adopted_by_its_memory(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Its `shm` is what is owned, closed and transferred; `close` takes the list as well."""
    a, b = manager.create_process("a"), manager.create_process("b")
    first: ShareableList[Any] = ShareableList([1, "two", 3.0])
    second = ShareableList([4])
    a.adopt(first)
    b.adopt(second)
    a.transfer(first.shm, b)
    memory.close(b.pid, second)

    assert first[1] == "two"
    assert manager.terminate_process(b.pid).stats.resources_freed == 1
    assert not {first.shm.name, second.shm.name} & shm_names()


def test_an_object_has_one_owner_and_a_refused_one_is_left_as_it_was(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """AlreadyOwnedError, ProcessTerminatedError: no descriptor kept, nothing unlinked."""
    a, b, dead = (manager.create_process(name) for name in ("a", "b", "dead"))
    manager.terminate_process(dead.pid)
    shm = SharedMemory(create=True, size=100)
    with pytest.raises((ProcessTerminatedError, UnadoptableError)):
        dead.adopt(shm)

    assert type(shm) is SharedMemory
    assert descriptors_of(shm.name) == 2

    a.adopt(shm)
    with pytest.raises((AlreadyOwnedError, UnadoptableError)):
        b.adopt(shm)
    with pytest.raises(AlreadyOwnedError):
        memory.adopt_shared_memory(a.pid, shm, as_owner=True)

    assert descriptors_of(shm.name) == 2


def test_a_closed_object_cannot_be_adopted(
    manager: ProcessManager, memory: MemoryManager, name: str
) -> None:
    """There is nothing in it, and its segment may be anybody's by now."""
    process = manager.create_process("late")
    shm = UntrackedSharedMemory(name, create=True, size=1)
    shm.close()
    with pytest.raises(ValueError, match="closed"):
        memory.adopt_shared_memory(process.pid, shm, as_owner=True)
    shm.unlink()

    segment = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=8)
    segment.detach()
    with pytest.raises(ValueError, match="attached no more"):
        memory.adopt_segment(process.pid, segment, as_owner=False)
    segment.remove()
    with pytest.raises(ValueError, match="removed"):
        memory.adopt_segment(process.pid, segment, as_owner=True)

    assert not manager.orchestrator.has_resources(process.pid)


def test_a_forked_child_does_not_guess_whose_an_inherited_object_is(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """A child that adopted its parent's object would unlink live memory: it has to say so."""
    process = manager.create_process("parent")
    shm = memory.create_shared_memory(process.pid, size=10)
    used = memory.open_shared_memory(process.pid, shm.name)
    segment = memory.create_segment(process.pid, 10)

    def child() -> None:
        with pytest.raises(ValueError, match="as_owner=True"):
            posixsegment.has_created(shm)
        assert not posixsegment.has_created(used)
        assert not sysvsegment.has_created(segment)

    assert exit_code_of_fork(child) == 0
    assert posixsegment.has_created(shm)
    assert sysvsegment.has_created(segment)


def test_a_subclass_of_somebodys_own_keeps_its_class(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """It may have its own ideas; the segment is owned and unlinked all the same."""

    class Own(SharedMemory):
        pass

    process = manager.create_process("owner")
    shm = Own(create=True, size=10)
    process.adopt(shm)

    assert type(shm) is Own
    assert manager.terminate_process(process.pid).is_success
    assert shm.name not in shm_names()


def test_a_sysv_segment_is_its_creators(manager: ProcessManager, memory: MemoryManager) -> None:
    """The kernel says which OS process created it: that one's adopter owns, another's uses."""
    process = manager.create_process("adopter")
    segment = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=100)
    process.adopt(segment)

    assert manager.orchestrator.usage(process.pid)["memory"].nbytes == 100

    with script(
        "s = memory.create_segment(pid, 7); say(s.id); wait(); process.terminate()"
    ) as other:
        others = sysv_ipc.attach(int(said(other)))
        process.adopt(others)
        result = manager.terminate_process(process.pid)

        assert (result.stats.resources_freed, result.stats.bytes_freed) == (2, 100)
        assert segment.id not in sysv_segments()
        assert sysv_segments()[others.id].attaches == 1

        _, stderr = other.communicate("\n", 30)

    assert others.id not in sysv_segments()
    assert stderr == ""


def test_a_segment_older_than_this_process_is_not_its_own(
    manager: ProcessManager, memory: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pids come round: a creator of our pid that lived before us was somebody else."""
    segment = memory.create_segment(manager.create_process("owner").pid, 8)

    assert abs(sysvsegment._time_of_our_start() - Path("/proc/self").stat().st_ctime) < 3600
    assert sysvsegment._time_of_our_start() <= time.time()

    monkeypatch.setattr(sysvsegment, "_time_of_our_start", lambda: time.time() + 60)

    assert not sysvsegment.has_created(segment)
