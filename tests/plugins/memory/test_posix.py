"""POSIX shared memory: the owner's end unlinks, a user's never; /dev/shm is the witness."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import seccomp
from memory_kernel import buffer_of, descriptors_of, is_mapped, run_script, shm_names

from probate import BusyResourceError, NotOwnedError, Outcome, RefusedResourceError
from probate_memory import UntrackedSharedMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ProcessManager
    from probate_memory import MemoryManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def _shm(name: str) -> Path:
    return Path("/dev/shm", name)


def test_the_owners_end_unlinks_and_a_users_does_not(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Owner is not user; who still maps the segment keeps it."""
    owner, user = manager.create_process("owner"), manager.create_process("user")
    shm = memory.create_shared_memory(owner.pid, size=5000)
    brief = manager.create_process("brief")
    memory.open_shared_memory(brief.pid, shm.name)
    attached = memory.open_shared_memory(user.pid, shm.name)
    buffer_of(shm)[:5] = b"hello"

    assert manager.terminate_process(brief.pid).stats.by_type == {"memory": 1}
    assert _shm(shm.name).stat().st_size == shm.size == attached.size == 5000

    result = manager.terminate_process(owner.pid)

    assert result.is_success
    assert (result.stats.resources_freed, result.stats.bytes_freed) == (1, 5000)
    assert shm.name not in shm_names()
    assert bytes(buffer_of(attached)[:5]) == b"hello"

    result = manager.terminate_process(user.pid)

    assert (result.stats.resources_freed, result.stats.bytes_freed) == (1, 0)
    assert not is_mapped(shm.name)


def test_a_segment_is_open_to_its_user_only_and_has_the_name_asked_for(
    manager: ProcessManager, memory: MemoryManager, name: str
) -> None:
    """Mode 0600; a leading slash is none of the name; a taken name is refused."""
    process = manager.create_process("owner")
    shm = memory.create_shared_memory(process.pid, f"/{name}", size=1)

    assert shm.name == name
    assert _shm(name).stat().st_mode & 0o777 == 0o600

    with pytest.raises(FileExistsError):
        memory.create_shared_memory(process.pid, name, size=1)

    assert manager.terminate_process(process.pid).stats.resources_freed == 1


def test_a_failed_creation_leaves_no_name(
    manager: ProcessManager, memory: MemoryManager, name: str
) -> None:
    """A segment that the kernel will not map is unlinked again."""
    process = manager.create_process("greedy")

    with pytest.raises(OSError, match=r"Cannot allocate|too large|No space|Invalid"):
        memory.create_shared_memory(process.pid, name, size=1 << 62)

    assert name not in shm_names()
    assert not manager.orchestrator.has_resources(process.pid)


def test_a_failed_attachment_unlinks_nothing(
    manager: ProcessManager, memory: MemoryManager, name: str
) -> None:
    """The interpreter's constructor unlinks what it cannot map; a user's failure never does."""
    process = manager.create_process("user")
    _shm(name).touch()

    with pytest.raises(ValueError, match="empty"):
        memory.open_shared_memory(process.pid, name)
    with pytest.raises(FileNotFoundError):
        memory.open_shared_memory(process.pid, f"{name}-nobody")

    assert name in shm_names()
    assert descriptors_of(name) == 0


def test_a_successor_of_the_same_name_is_left_alone(
    manager: ProcessManager, memory: MemoryManager, name: str
) -> None:
    """The old server deleted its successor's path: file handles are compared.

    By that it is told even where the object itself was closed before, and the number came round.
    """
    for close in (False, True):
        process = manager.create_process("old")
        shm = memory.create_shared_memory(process.pid, name, size=10)
        if close:
            shm.close()
        _shm(name).unlink()
        _shm(name).write_bytes(b"successor")
        result = manager.terminate_process(process.pid)

        assert result.is_success
        assert result.stats.resources_freed == (0 if close else 1)
        assert _shm(name).read_bytes() == b"successor"

        _shm(name).unlink()


@pytest.mark.parametrize("by_hand", [False, True])
def test_an_owner_that_only_closed_the_object_still_unlinks(
    manager: ProcessManager, memory: MemoryManager, by_hand: bool
) -> None:
    """Closing unmaps; the name is still the owner's to remove."""
    process = manager.create_process("owner")
    shm = memory.create_shared_memory(process.pid, size=10)
    shm.close()
    if by_hand:
        memory.close(process.pid, shm)
    result = manager.terminate_process(process.pid)

    assert result.stats.resources_freed == (0 if by_hand else 1)
    assert shm.name not in shm_names()
    assert descriptors_of(shm.name) == 0


def test_what_was_closed_and_unlinked_directly_is_already_gone(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Neither counted nor complained of."""
    process = manager.create_process("owner")
    shm = memory.create_shared_memory(process.pid, size=10)
    user = memory.open_shared_memory(process.pid, shm.name)
    user.close()
    shm.close()
    shm.unlink()
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.resources_freed == 0


def test_close_is_owner_checked_and_idempotent(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """A user's close detaches, the owner's unlinks; each once."""
    a, b = manager.create_process("a"), manager.create_process("b")
    shm = memory.create_shared_memory(a.pid, size=10)
    attached = memory.open_shared_memory(b.pid, shm.name)

    with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
        memory.close(b.pid, shm)
    for _ in range(2):
        memory.close(b.pid, attached)
    assert shm.name in shm_names()

    for _ in range(2):
        memory.close(a.pid, shm)
    assert shm.name not in shm_names()
    assert not manager.orchestrator.has_resources(a.pid)


def test_unlink_is_the_owners_and_keeps_the_mapping(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """An unlinked segment is nobody's to find, and works on until it is closed."""
    a, b = manager.create_process("a"), manager.create_process("b")
    shm = memory.create_shared_memory(a.pid, size=10)
    attached = memory.open_shared_memory(b.pid, shm.name)

    with pytest.raises(RefusedResourceError, match="attached only"):
        memory.unlink(b.pid, attached)
    assert shm.name in shm_names()

    for _ in range(2):
        memory.unlink(a.pid, shm)
    buffer_of(shm)[0] = 7

    assert shm.name not in shm_names()
    assert buffer_of(attached)[0] == 7
    assert manager.terminate_process(a.pid).stats.bytes_freed == 10


def test_ownership_of_a_segment_goes_over_to_a_user(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """After a transfer it is the new owner's end that unlinks."""
    a, b = manager.create_process("a"), manager.create_process("b")
    shm = memory.create_shared_memory(a.pid, size=10)
    a.transfer(shm, b)
    manager.terminate_process(a.pid)

    assert shm.name in shm_names()

    manager.terminate_process(b.pid)

    assert shm.name not in shm_names()


@pytest.mark.parametrize("look", ["slice", "frombuffer", "ndarray"])
def test_a_segment_in_use_is_unlinked_and_its_mapping_busy(
    manager: ProcessManager, memory: MemoryManager, look: str
) -> None:
    """BufferError: exported pointers; the fd leaked too. The fd is closed anyway, and ours with
    it; the map is BUSY, retried, then reported, and freed once they are gone.
    """
    process = manager.create_process("owner")
    shm = memory.create_shared_memory(process.pid, size=10)
    buffer_of(shm)[0] = 7
    views: dict[str, Callable[[], Any]] = {
        "slice": lambda: buffer_of(shm)[:5],
        "frombuffer": lambda: np.frombuffer(buffer_of(shm), np.uint8),
        "ndarray": lambda: np.ndarray(10, np.uint8, buffer=buffer_of(shm)),
    }
    held = [views[look]()]
    with pytest.raises(BusyResourceError):
        memory.close(process.pid, shm)
    assert shm.name in shm_names()

    result = manager.terminate_process(process.pid)

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert held[0][0] == 7
    assert shm.name not in shm_names()
    # What mmap itself holds for the map, and shows to nobody, is there until that is unmapped.
    assert descriptors_of(shm.name) == 1

    memory.unlink(process.pid, shm)
    held.clear()
    again = manager.orchestrator.cleanup_process(process.pid, grace=0)

    assert (again.is_success, again.stats.bytes_freed) == (True, 10)
    assert descriptors_of(shm.name) == 0


@pytest.mark.parametrize("wipe", [False, True])
def test_a_segment_takes_two_descriptors_and_one_more_to_be_wiped_by(
    manager: ProcessManager, memory: MemoryManager, wipe: bool
) -> None:
    """SharedMemory's and its map's; who closes the object, and removes the name, is wiped still."""
    process = manager.create_process("owner")
    shm = memory.create_shared_memory(process.pid, size=10, wipe=wipe)

    assert descriptors_of(shm.name) == 2 + wipe

    memory.open_shared_memory(process.pid, shm.name)

    assert descriptors_of(shm.name) == 4 + wipe


@pytest.mark.skipif(not seccomp.is_known(), reason="the numbers of system calls are not known here")
@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_where_there_are_no_handles_a_descriptor_tells_a_segment_from_its_successor(
    name: str, close: bool, is_replaced: bool
) -> None:
    """Kept open, so that the number is given to no other: as by older kernels, or in containers."""
    done = run_script(
        """
        sys.path.append(sys.argv[1])
        import memory_kernel, seccomp
        seccomp.refuse_handles()
        shm = memory.create_shared_memory(pid, sys.argv[2], size=10)
        assert memory_kernel.descriptors_of(sys.argv[2]) == 3
        if sys.argv[3]:
            shm.close()
        if sys.argv[4]:
            os.unlink(f"/dev/shm/{sys.argv[2]}")
            os.close(os.open(f"/dev/shm/{sys.argv[2]}", os.O_CREAT | os.O_EXCL))
        print(manager.terminate_process(pid))
        """,
        str(Path(seccomp.__file__).parent),
        name,
        "close" * close,
        "replace" * is_replaced,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"PID 1 cleanup: {int(not (close and is_replaced))} resources")
    assert (name in shm_names()) == is_replaced

    if is_replaced:
        _shm(name).unlink()


@pytest.mark.parametrize("how", ["cleanup", "by hand", "closed before", "busy"])
def test_a_segment_is_wiped_before_its_owner_lets_go(
    manager: ProcessManager, memory: MemoryManager, how: str
) -> None:
    """Zeros for whoever still maps it, also if the owner's object was closed, or is busy."""
    owner, user = manager.create_process("owner"), manager.create_process("user")
    shm = memory.create_shared_memory(owner.pid, size=3 << 20, wipe=True)
    # Somebody may have punched a hole into it.
    os.truncate(shm._fd, 1)
    os.truncate(shm._fd, 3 << 20)
    attached = memory.open_shared_memory(user.pid, shm.name)
    buffer_of(shm)[:6] = buffer_of(shm)[-6:] = b"secret"
    held = [buffer_of(shm)[:1]] if how == "busy" else []
    if how == "by hand":
        memory.close(owner.pid, shm)
    elif how == "closed before":
        shm.close()
    manager.terminate_process(owner.pid)
    pages = _pages_of(attached)

    assert not any(np.frombuffer(buffer_of(attached), np.uint8))
    # The hole in the middle has been left a hole.
    assert pages <= 4

    for each in held:
        each.release()
    assert manager.orchestrator.cleanup_process(owner.pid, grace=0).is_success


def _pages_of(shm: UntrackedSharedMemory) -> int:
    return os.fstat(shm._fd).st_blocks * 512 // 4096


def test_a_user_wipes_nothing(manager: ProcessManager, memory: MemoryManager) -> None:
    """What is not ours stays as it is."""
    owner, user = manager.create_process("owner"), manager.create_process("user")
    shm = memory.create_shared_memory(owner.pid, size=10)
    buffer_of(shm)[0] = 7
    memory.open_shared_memory(user.pid, shm.name)
    manager.terminate_process(user.pid)

    assert buffer_of(shm)[0] == 7


def test_a_pickled_segment_attaches_on_the_other_side(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """As SharedMemory's own pickles do, but tracked by nobody; it owns nothing by itself."""
    process = manager.create_process("owner")
    shm = memory.create_shared_memory(process.pid, size=10)
    copy: UntrackedSharedMemory = pickle.loads(pickle.dumps(shm))
    buffer_of(copy)[0] = 7

    assert buffer_of(shm)[0] == 7
    assert type(copy) is type(shm)

    process.adopt(copy)
    memory.close(process.pid, copy)

    assert shm.name in shm_names()


def test_an_array_may_outlive_the_object(manager: ProcessManager, memory: MemoryManager) -> None:
    """The interpreter's SharedMemory unmaps when it is collected, from under an array as well."""
    process = manager.create_process("owner")
    shm = memory.create_shared_memory(process.pid, size=10)
    copy = UntrackedSharedMemory(shm.name)
    array = np.ndarray(10, np.uint8, buffer=copy.buf)
    del copy
    buffer_of(shm)[3] = 7

    assert array[3] == 7

    del array
    assert descriptors_of(shm.name) == 2


_SMALL_FOLDER = """
import errno, subprocess

# Within a namespace of mounts, where /dev/shm is another and has 64 KiB.
done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", "/dev/shm"])
if done.returncode:
    sys.exit("skip: nothing can be mounted here")
try:
    memory.create_shared_memory(pid, size=4 << 20)
except OSError as error:
    say(error.errno == errno.ENOSPC, error.filename, "4194304 bytes" in str(error))
say(os.listdir("/dev/shm"))
segment = memory.create_shared_memory(pid, size=32 << 10)
segment.buf[:] = bytes(range(256)) * 128
say(process.terminate().is_success, os.listdir("/dev/shm"))
"""


def test_a_segment_has_its_pages_when_it_is_made() -> None:
    """One larger than /dev/shm was "made", and killed the host by SIGBUS: ENOSPC, and no trace."""
    done = run_script(_SMALL_FOLDER, under=("unshare", "--mount", "--map-root-user"))
    if done.stderr.startswith(("skip: ", "unshare: ")):
        pytest.skip(done.stderr)

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["True /dev/shm True", "[]", "True []"]
