"""SysV segments: removed by their owner, and only with nobody attached; the kernel counts."""

from __future__ import annotations

import os
import secrets
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sysv_ipc
from memory_kernel import run_script, said, script, sysv_segments

from probate import BusyResourceError, NotOwnedError, Outcome, RefusedResourceError

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_memory import MemoryManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_a_segment_goes_with_its_owner(manager: ProcessManager, memory: MemoryManager) -> None:
    """Made with the bytes asked for, found by id and by key, detached by its users, removed."""
    owner, user = manager.create_process("owner"), manager.create_process("user")
    segment = memory.create_segment(owner.pid, 5000)
    by_id = memory.open_segment(user.pid, segment.id)
    by_key = memory.open_segment_by_key(user.pid, segment.key)
    segment.write(b"hello")

    assert by_id.read(5) == by_key.read(5) == b"hello"
    assert segment.read(1, 4999) == b"\0"
    assert sysv_segments()[segment.id] == (5000, os.getpid(), 3)

    result = manager.terminate_process(user.pid)

    assert (result.stats.resources_freed, result.stats.bytes_freed) == (2, 0)
    assert sysv_segments()[segment.id].attaches == 1

    result = manager.terminate_process(owner.pid)

    assert result.is_success
    assert (result.stats.resources_freed, result.stats.bytes_freed) == (1, 5000)
    assert segment.id not in sysv_segments()


def test_a_segment_with_another_process_attached_is_refused_and_kept(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """IPC removed under a live PostgreSQL: per-object ownership, and a look who uses it.

    Once the other process is dead, however it died, whoever owns the segment may remove it.
    """
    first, second = manager.create_process("first"), manager.create_process("second")
    segment = memory.create_segment(first.pid, 100)
    segment.write(b"live")
    with script(
        "say(memory.open_segment(pid, int(sys.argv[1])).read(4)); wait()", str(segment.id)
    ) as other:
        assert said(other) == "b'live'"

        result = manager.terminate_process(first.pid)

        assert [error.outcome for error in result.errors] == [Outcome.REFUSED]
        assert "attached 1 more times" in result.errors[0].message
        assert f"created by {os.getpid()}" in result.errors[0].message
        assert f"ipcrm -m {segment.id}" in result.errors[0].message
        assert result.stats.resources_freed == 0
        assert not manager.orchestrator.has_resources(first.pid)
        assert sysv_segments()[segment.id].attaches == 1

        other.send_signal(signal.SIGKILL)
        other.wait()

    assert sysv_segments()[segment.id].attaches == 0

    again = sysv_ipc.attach(segment.id)
    assert again.read(4) == b"live"
    memory.adopt_segment(second.pid, again, as_owner=True)

    assert manager.terminate_process(second.pid).is_success
    assert segment.id not in sysv_segments()


def test_a_refused_close_changes_nothing(manager: ProcessManager, memory: MemoryManager) -> None:
    """The owner still has the segment, and may close it when its users have gone."""
    owner, user = manager.create_process("owner"), manager.create_process("user")
    segment = memory.create_segment(owner.pid, 100, wipe=True)
    segment.write(b"kept")
    attached = memory.open_segment(user.pid, segment.id)

    with pytest.raises(BusyResourceError, match="attached 1 more times"):
        memory.close(owner.pid, segment)
    with pytest.raises(RefusedResourceError, match="attached only"):
        memory.unlink(user.pid, attached)
    with pytest.raises(RefusedResourceError, match="attached 1 more times"):
        memory.unlink(owner.pid, segment)
    with pytest.raises(NotOwnedError):
        memory.close(user.pid, segment)

    assert segment.read(4) == attached.read(4) == b"kept"

    for _ in range(2):
        memory.close(user.pid, attached)
        memory.close(owner.pid, segment)

    assert segment.id not in sysv_segments()


def test_a_refused_segment_is_not_wiped(manager: ProcessManager, memory: MemoryManager) -> None:
    """Who still uses it finds what was there."""
    owner, user = manager.create_process("owner"), manager.create_process("user")
    segment = memory.create_segment(owner.pid, 100, wipe=True)
    segment.write(b"kept")
    attached = memory.open_segment(user.pid, segment.id)

    assert not manager.terminate_process(owner.pid).is_success
    assert attached.read(4) == b"kept"

    attached.remove()


@pytest.mark.parametrize("detached", [False, True])
def test_a_segment_is_wiped_before_it_is_removed(
    manager: ProcessManager,
    memory: MemoryManager,
    monkeypatch: pytest.MonkeyPatch,
    detached: bool,
) -> None:
    """Zeros to the last byte, also if its owner had detached it before."""
    process = manager.create_process("owner")
    size = (1 << 20) + 100
    segment = memory.create_segment(process.pid, size, wipe=True)
    segment.write(b"s" * size)
    seen: list[bytes] = []
    from probate_memory import sysv

    remove = sysv.remove

    def look_and_remove(native: sysv_ipc.SharedMemory) -> None:
        native.attach()
        seen.append(native.read())
        native.detach()
        remove(native)

    monkeypatch.setattr(sysv, "remove", look_and_remove)
    if detached:
        segment.detach()
    manager.terminate_process(process.pid)

    assert seen == [bytes(size)]


def test_memoryviews_of_a_segment_make_it_busy(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """sysv_ipc would detach under them, and the next look be a SIGSEGV."""
    process = manager.create_process("owner")
    segment = memory.create_segment(process.pid, 100)
    segment.write(b"seen")
    looked_at: Any = segment
    held = [np.frombuffer(memoryview(looked_at), np.uint8)]
    with pytest.raises(BusyResourceError):
        memory.close(process.pid, segment)

    result = manager.terminate_process(process.pid)

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert bytes(held[0])[:4] == b"seen"

    held.clear()
    del segment, looked_at

    assert manager.orchestrator.cleanup_process(process.pid, grace=0).stats.bytes_freed == 100


@pytest.mark.parametrize(
    ("detach", "remove", "freed"),
    [(True, False, 1), (False, True, 1), (True, True, 0)],
)
def test_what_was_done_directly_is_not_done_again(
    manager: ProcessManager, memory: MemoryManager, detach: bool, remove: bool, freed: int
) -> None:
    """The owner does the rest; nothing is counted if there is none."""
    process = manager.create_process("owner")
    segment = memory.create_segment(process.pid, 100)
    if detach:
        segment.detach()
    if remove:
        segment.remove()
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.resources_freed == freed
    assert segment.id not in sysv_segments()


def test_a_segment_unlinked_early_goes_with_its_last_user(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Removed by name, it works on, and needs nobody to be removed (shmctl(2), IPC_RMID)."""
    process = manager.create_process("owner")
    segment = memory.create_segment(process.pid, 100)
    memory.unlink(process.pid, segment)
    memory.unlink(process.pid, segment)
    segment.write(b"still")

    assert segment.read(5) == b"still"
    with pytest.raises(FileNotFoundError):
        memory.open_segment_by_key(process.pid, segment.key)

    memory.close(process.pid, segment)

    assert segment.id not in sysv_segments()


def test_the_kernels_refusals_are_plain_oserrors(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """A taken key, a missing id or key: FileExistsError, FileNotFoundError, naming them."""
    process = manager.create_process("owner")
    segment = memory.create_segment(process.pid, 100)

    with pytest.raises(FileExistsError, match=str(segment.key)):
        memory.create_segment(process.pid, 100, key=segment.key)

    memory.close(process.pid, segment)

    with pytest.raises(FileNotFoundError, match=f"segment {segment.id}"):
        memory.open_segment(process.pid, segment.id)
    with pytest.raises(FileNotFoundError, match=str(segment.key)):
        memory.open_segment_by_key(process.pid, segment.key)
    with pytest.raises(OSError, match="segment of"):
        memory.create_segment(process.pid, 1 << 62)

    assert not manager.orchestrator.has_resources(process.pid)


def test_key_mode_and_private_segments(manager: ProcessManager, memory: MemoryManager) -> None:
    """As asked for; of IPC_PRIVATE there may be several."""
    process = manager.create_process("owner")
    key = secrets.randbelow(2**31)
    segment = memory.create_segment(process.pid, 100, key=key, mode=0o640)
    private = [memory.create_segment(process.pid, 8, key=sysv_ipc.IPC_PRIVATE) for _ in range(2)]

    assert (segment.key, segment.mode & 0o777) == (key, 0o640)
    assert len({each.id for each in private}) == 2
    assert manager.terminate_process(process.pid).stats.resources_freed == 3


#: In an IPC namespace of its own, where a process may choose the next id (sysctl(2)'s
#: kernel.shm_next_id, which needs CAP_CHECKPOINT_RESTORE there): else ids come round after
#: some four million segments. An ordinary user gets it with a user namespace (namespaces(7)).
_RECYCLED_ID = """
import ctypes, sysv_ipc, warnings
from pathlib import Path

# From 3.12 on a fork warns of the thread that watches over the reaper.
warnings.simplefilter("ignore", DeprecationWarning)

CLONE_NEWIPC, CLONE_NEWUSER = 0x08000000, 0x10000000
NEXT_ID = Path("/proc/sys/kernel/shm_next_id")


def make_successor(size):
    NEXT_ID.write_text(str(segment.id))
    successor = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=size)
    successor.write(b"theirs")
    successor.detach()
    return successor.id


unshare = ctypes.CDLL(None).unshare
if unshare(CLONE_NEWIPC) and unshare(CLONE_NEWIPC | CLONE_NEWUSER):
    sys.exit("skip: no IPC namespace of its own is to be had here")
try:
    NEXT_ID.open("w").close()
except OSError as error:
    sys.exit(f"skip: the next id cannot be chosen here: {error}")
segment = memory.create_segment(pid, 100, wipe=True)
segment.detach()
segment.remove()
if sys.argv[1] == "of another size":
    found = make_successor(200)
elif (child := os.fork()) == 0:
    make_successor(100)
    os._exit(0)
else:
    os.waitpid(child, 0)
    found = segment.id
assert found == segment.id
result = process.terminate()
say(result.is_success, result.stats.resources_freed, sysv_ipc.attach(found).read(6).decode())
"""


@pytest.mark.parametrize("successor", ["of another size", "of another process"])
def test_a_successor_with_the_same_id_is_left_alone(successor: str) -> None:
    """Ids come round: who made it, and its size, are compared before it is wiped and removed."""
    done = run_script(_RECYCLED_ID, successor)
    if done.stderr.startswith("skip: "):
        pytest.skip(done.stderr)

    assert (done.stderr, done.stdout) == ("", "True 0 theirs\n")
