"""Private memory: made, counted, given back, and never read by the next."""

from __future__ import annotations

import ctypes
import gc
import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from memory_kernel import run_script
from plugins_things import ThingResource

from probate import BusyResourceError, NotOwnedError, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ProcessManager
    from probate_memory import MemoryManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

SIZE = 8 << 20


def _address_space() -> int:
    """Bytes that this process maps (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def test_an_allocation_is_zeros_and_goes_with_its_owner(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """The bytes asked for are counted, used, and given back to the kernel."""
    process = manager.create_process("worker")
    before = _address_space()
    block = memory.allocate(process.pid, SIZE)

    assert (block.nbytes, block.format, block.readonly) == (SIZE, "B", False)
    assert not any(block)

    block[:5] = b"hello"
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.by_type == {"memory": 1}
    assert result.stats.bytes_freed == SIZE
    assert _address_space() < before + SIZE


def test_use_after_the_end_is_an_error_and_no_dangling_read(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Mappings unmapped, memory freed, then users touched them: a ValueError, not a crash."""
    process = manager.create_process("worker")
    block = memory.allocate(process.pid, 100)
    manager.terminate_process(process.pid)

    with pytest.raises(ValueError, match="released"):
        block[0]


def test_free_gives_back_at_once_and_is_idempotent(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Freeing twice is freeing once."""
    process = manager.create_process("worker")
    block = memory.allocate(process.pid, SIZE)
    memory.free(process.pid, block)
    memory.free(process.pid, block)

    assert not manager.orchestrator.has_resources(process.pid)
    assert manager.terminate_process(process.pid).stats.bytes_freed == 0


def test_only_the_owner_frees(manager: ProcessManager, memory: MemoryManager) -> None:
    """A release is owner-checked; a view of the block is not the block."""
    a, b = manager.create_process("a"), manager.create_process("b")
    block = memory.allocate(a.pid, 10)

    with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
        memory.free(b.pid, block)
    with pytest.raises(NotOwnedError), memory.allocate(b.pid, 10)[2:] as part:
        memory.free(b.pid, part)

    block[0] = 1


@pytest.mark.parametrize("look", ["slice", "frombuffer", "ndarray", "ctypes"])
def test_what_lies_on_a_block_makes_it_busy(
    manager: ProcessManager, memory: MemoryManager, look: str
) -> None:
    """BufferError of exported pointers: BUSY, reported, and freed once they are gone.

    An array by `np.ndarray(buffer=...)` exports nothing, and would read what is unmapped.
    """
    process = manager.create_process("worker")
    block = memory.allocate(process.pid, 64)
    block[:] = b"x" * 64
    looks: dict[str, Callable[[], Any]] = {
        "slice": lambda: block[3:],
        "frombuffer": lambda: np.frombuffer(block, np.uint8)[3:],
        "ndarray": lambda: np.ndarray(64, np.uint8, buffer=block)[3:],
        "ctypes": lambda: (ctypes.c_char * 64).from_buffer(block),
    }
    held = [looks[look]()]
    with pytest.raises(BusyResourceError, match="still in use"):
        memory.free(process.pid, block)

    result = manager.terminate_process(process.pid)

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert result.stats.resources_freed == 0
    assert bytes(held[0])[:1] == b"x"

    held.clear()
    gc.collect()
    again = manager.orchestrator.cleanup_process(process.pid, grace=0)

    assert again.is_success
    assert again.stats.bytes_freed == 64


def test_a_view_that_another_kind_drops_is_no_error(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Busy things are retried within the same termination, after the other kinds."""
    late = ThingResource("late", -1)
    manager.orchestrator.register(late, "late")
    process = manager.create_process("worker")
    part = memory.allocate(process.pid, 64)[3:]
    late.give(process.pid, behave=part.release)
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.by_type == {"late": 1, "memory": 1}


def test_a_block_is_wiped_before_it_is_given_back(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Wiped even where a view keeps it: who looks on sees zeros."""
    process = manager.create_process("worker")
    block, kept = memory.allocate(process.pid, 3 << 20, wipe=True), memory.allocate(process.pid, 9)
    block[:] = b"s" * len(block)
    kept[:] = b"unwiped!!"
    part, other = block[1:], kept[1:]
    manager.terminate_process(process.pid)

    assert not any(np.frombuffer(part, np.uint8))
    assert bytes(other) == b"nwiped!!"

    part.release()
    other.release()
    assert manager.orchestrator.cleanup_process(process.pid, grace=0).is_success


def test_memory_of_the_dead_is_never_read_by_the_next(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """A receiver read a dead sender's memory, recycled: blocks are cleared before reuse."""
    for _ in range(50):
        process = manager.create_process("sender")
        block = memory.allocate(process.pid, 64 * 1024)

        assert block == bytes(len(block))

        block[:] = b"secret" * (len(block) // 6) + b"more"
        manager.terminate_process(process.pid)


def test_a_block_that_the_kernel_has_no_room_for_is_an_oserror(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """ENOMEM, and nothing owned."""
    process = manager.create_process("greedy")

    with pytest.raises(OSError, match="Cannot allocate memory"):
        memory.allocate(process.pid, 1 << 62)

    assert not manager.orchestrator.has_resources(process.pid)


def test_the_peak_is_the_most_that_was_held_and_ends_with_the_process(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Bytes of allocations and owned segments; what was given back still counts for the peak."""
    process, other = manager.create_process("a"), manager.create_process("b")
    assert memory.peak(process.pid) == 0
    block = memory.allocate(process.pid, 1000)
    shm = memory.create_shared_memory(process.pid, size=500)
    memory.open_shared_memory(other.pid, shm.name)
    memory.free(process.pid, block)
    memory.close(process.pid, shm)
    memory.allocate(process.pid, 10)

    assert memory.peak(process.pid) == 1500
    assert memory.peak(other.pid) == 0

    manager.terminate_process(process.pid)

    assert memory.peak(process.pid) == 0


def test_a_transferred_block_counts_for_its_new_owner(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Bytes and peak go with the block."""
    a, b = manager.create_process("a"), manager.create_process("b")
    block = memory.allocate(a.pid, 300)
    a.transfer(block, b)

    assert manager.terminate_process(a.pid).stats.resources_freed == 0
    assert memory.peak(b.pid) == 300

    block[0] = 1
    assert manager.terminate_process(b.pid).stats.bytes_freed == 300


def test_peaks_do_not_grow_with_the_dead(manager: ProcessManager, memory: MemoryManager) -> None:
    """A process that freed all it had is not asked to clean up; it is forgotten all the same."""
    for _ in range(2500):
        process = manager.create_process("brief")
        memory.free(process.pid, memory.allocate(process.pid, 1))
        manager.terminate_process(process.pid)

    assert len(memory._peaks._highest) < 2100


def test_a_process_is_current_by_default(manager: ProcessManager, memory: MemoryManager) -> None:
    """Within `with manager.process(...)` the pid may be left out."""
    with manager.process("current") as process:
        block = memory.allocate(64)
        shm = memory.create_shared_memory(size=64)
        memory.open_shared_memory(shm.name)
        segment = memory.create_segment(64)
        memory.open_segment(segment.id)

        assert manager.orchestrator.usage(process.pid)["memory"].count == 5
        assert memory.peak() == 192

        memory.free(block)
        memory.close(shm)

        assert manager.orchestrator.usage(process.pid)["memory"].count == 3
        # One user of the segment is newer than its owner, and so detached before.
    assert process.terminate().is_success


def test_an_interpreter_ends_well_with_memory_in_use() -> None:
    """No finalizer complains, whatever is still owned, exported or attached at exit."""
    done = run_script(
        """
        import numpy as np
        block = memory.allocate(pid, 4096)
        part = block[1:]
        shm = memory.create_shared_memory(pid, size=10)
        array = np.ndarray(10, np.uint8, buffer=shm.buf)
        view = shm.buf[3:]
        shm.unlink()
        segment = memory.create_segment(pid, 10)
        memory.unlink(pid, segment)
        say("done")
        """
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
