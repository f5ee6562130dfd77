"""io_uring: operations, waiting, and what has to happen before anything is freed."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, cast

import pytest
from children import exit_code_of_fork
from threads import in_thread

from probate import BusyResourceError, NotOwnedError, Outcome, ProcessManager
from probate.testing.witness import KernelView
from probate_rings import IoUring, RingClosedError, RingFullError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from probate_rings import IoUringManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe from which nothing comes until a test writes it."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def ring(manager: ProcessManager, iouring: IoUringManager) -> IoUring:
    """Of a process that ends with the test."""
    return iouring.create_ring(manager.create_process("uring").pid, 8)


def wait_until_asleep(thread: threading.Thread) -> None:
    """Until the kernel has it in poll (7 on x86-64, syscall(2))."""
    for _ in range(5000):
        with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
            if file.read().split()[0] == "7":
                return
        threading.Event().wait(0.001)
    pytest.fail("the thread never slept")


def test_a_file_is_written_and_read(ring: IoUring, tmp_path: Path) -> None:
    """At offsets, from bytes and bytearrays, into own and given buffers."""
    with (tmp_path / "file").open("wb+") as file:
        first = ring.write(file, b"hello ")
        second = ring.write(file.fileno(), bytearray(b"world"), offset=6)

        assert ring.submit() == 2
        assert {(done.token, done.result) for done in ring.reap(2)} == {(first, 6), (second, 5)}
        assert (tmp_path / "file").read_bytes() == b"hello world"

        buffer = bytearray(5)
        given, made = ring.read(file, buffer, offset=6), ring.read(file, 100)
        done = {completion.token: completion for completion in ring.reap(2)}

        assert done[given].buffer is buffer
        assert buffer == b"world"
        assert bytes(done[made].data) == b"hello world"
        assert isinstance(done[made].buffer, bytearray)
        assert done[made].error is None


def test_the_current_position_is_used_where_no_offset_is_given(
    ring: IoUring, tmp_path: Path
) -> None:
    """`offset=None` reads on, as read(2) does."""
    (tmp_path / "file").write_bytes(b"abcdef")
    with (tmp_path / "file").open("rb") as file:
        parts = []
        for _ in range(2):
            ring.read(file, 3, offset=None)
            parts.append(bytes(ring.reap(1)[0].data))

        assert parts == [b"abc", b"def"]


def test_an_error_is_a_negative_errno(ring: IoUring, tmp_path: Path) -> None:
    """And as an exception it is the one that the system call would raise."""
    with (tmp_path / "file").open("wb") as file:
        token = ring.read(file, 3)
        (done,) = ring.reap(1)

    assert done.token == token
    assert done.result == -errno.EBADF
    assert isinstance(done.error, OSError)
    assert done.error.errno == errno.EBADF
    assert bytes(done.data) == b""


def test_nops_and_timeouts(ring: IoUring) -> None:
    """A nop completes at once, a timeout after its time, with -ETIME."""
    late, nop = ring.timeout(0.02), ring.nop()
    done = ring.reap(2)

    assert [completion.token for completion in done] == [nop, late]
    assert [completion.result for completion in done] == [0, -errno.ETIME]
    with pytest.raises(ValueError, match="moves no data"):
        _ = done[0].data


def test_reap_waits_no_longer_than_it_may_or_must(ring: IoUring, pipe: tuple[int, int]) -> None:
    """Not beyond its timeout, not for what is not under way, and with 0 not at all."""
    assert ring.reap() == []
    assert ring.reap(5) == []

    ring.read(pipe[0], 10)

    assert ring.reap() == []
    assert ring.in_flight == 1
    assert ring.reap(1, timeout=0.01) == []

    ring.nop()

    assert len(ring.reap(2, timeout=0.01)) == 1

    os.write(pipe[1], b"x")

    assert [done.result for done in ring.reap(1)] == [1]


def test_more_than_the_queue_holds_goes_in_several_rounds(ring: IoUring) -> None:
    """Twice the entries may be under way; beyond that RingFullError, until some are reaped."""
    tokens = [ring.nop() for _ in range(ring.capacity)]

    assert ring.capacity == 16
    with pytest.raises(RingFullError, match="16 operations are in flight"):
        ring.nop()

    assert ring.submit() == 16
    with pytest.raises(BlockingIOError, match="16 operations are in flight"):
        ring.nop()

    assert [done.token for done in ring.reap(16)] == tokens

    ring.nop()


def test_completions_beyond_the_queue_are_not_lost(ring: IoUring, pipe: tuple[int, int]) -> None:
    """A full completion queue, and a cancellation on top: the kernel keeps it, we fetch it."""
    for _ in range(ring.capacity):
        ring.read(pipe[0], 1)
    ring.submit()
    ring.stop()

    done = ring.reap(ring.capacity)

    assert [completion.result for completion in done] == [-errno.ECANCELED] * 16
    assert ring.in_flight == 0


@pytest.mark.parametrize(
    ("entries", "rounded"), [(1, 1), (3, 4), (8, 8), (4097, 8192), (32768, 32768)]
)
def test_entries_are_rounded_up(
    manager: ProcessManager, iouring: IoUringManager, entries: int, rounded: int
) -> None:
    """To a power of two, as the kernel does."""
    process = manager.create_process("size")
    ring = iouring.create_ring(process.pid, entries)

    assert ring.entries == rounded
    assert process.usage()["rings"].nbytes == ring.nbytes == rounded * 96


def test_a_buffer_in_flight_can_be_neither_freed_nor_resized(
    ring: IoUring, pipe: tuple[int, int]
) -> None:
    """The kernel has nothing but its address; once it is reaped it is free again."""
    buffer = bytearray(4)
    ring.read(pipe[0], buffer)
    ring.submit()
    with pytest.raises(BufferError):
        buffer.extend(b"more")
    del buffer
    os.write(pipe[1], b"data")
    (done,) = ring.reap(1)

    assert done.buffer == b"data"
    assert isinstance(done.buffer, bytearray)

    done.buffer.extend(b"more")


def test_cleanup_cancels_drains_and_then_frees(
    manager: ProcessManager, iouring: IoUringManager, pipe: tuple[int, int]
) -> None:
    """In-flight buffers reused after teardown (liburing#1627): nothing is written after it."""
    process = manager.create_process("flight")
    ring = iouring.create_ring(process.pid, 8)
    buffers = [bytearray(4) for _ in range(6)]
    for buffer in buffers:
        ring.read(pipe[0], buffer)
    ring.timeout(1000)
    ring.submit()

    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.by_type == {"rings": 1}
    assert result.stats.bytes_freed == 8 * 96
    assert ring.in_flight == 0

    os.write(pipe[1], b"late" * 6)

    # Nobody has taken it: every read was over before its buffer was let go.
    assert os.read(pipe[0], 100) == b"late" * 6
    assert buffers == [bytearray(4)] * 6

    for buffer in buffers:
        buffer.extend(b"free to be resized")


def test_what_cannot_be_cancelled_is_busy_and_nothing_is_freed(
    manager: ProcessManager,
    iouring: IoUringManager,
    pipe: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With an operation in flight the ring stays, its buffer too; later it is freed."""
    process = manager.create_process("stuck")
    ring = iouring.create_ring(process.pid, 8)
    buffer = bytearray(4)
    ring.read(pipe[0], buffer)
    ring.submit()
    with monkeypatch.context() as patch:
        # As if the device were deaf to cancellation.
        patch.setattr(IoUring, "_cancel", lambda self: None)
        patch.setattr("probate_rings.ringmanager.PATIENCE", 0.02)
        with pytest.raises(BusyResourceError, match=r"1 operations.*\(read #1\)"):
            ring.release(patience=0.01)
        result = manager.orchestrator.cleanup_process(process.pid)

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "nothing is freed before" in result.errors[0].message
    assert ring.fileno() in KernelView.take().fds
    with pytest.raises(BufferError):
        buffer.extend(b"more")

    os.write(pipe[1], b"done")
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert buffer == b"done"


def test_quiesce_refuses_and_cancels(
    manager: ProcessManager, ring: IoUring, pipe: tuple[int, int]
) -> None:
    """No more operations; what was in flight, or only prepared, completes as cancelled."""
    flying, resting = ring.read(pipe[0], 1), ring.timeout(1000)
    ring.submit()
    prepared = ring.nop()
    ring.stop()
    ring.stop()
    for call in (ring.nop, ring.submit, lambda: ring.read(0, 1), lambda: ring.timeout(1)):
        with pytest.raises(RingClosedError, match="is stopped"):
            call()

    done = ring.reap(3)

    assert {completion.token for completion in done} == {flying, resting, prepared}
    assert {completion.result for completion in done} == {-errno.ECANCELED}
    with pytest.raises(RingClosedError, match="all is reaped"):
        ring.reap()


def test_termination_wakes_a_reaper(
    manager: ProcessManager, iouring: IoUringManager, pipe: tuple[int, int]
) -> None:
    """A thread that waits in reap gets what was cancelled, or is told, and never hangs."""
    for _ in range(20):
        process = manager.create_process("reaper")
        ring = iouring.create_ring(process.pid, 8)
        ring.read(pipe[0], 1)
        thread, outcome = in_thread(lambda ring=ring: ring.reap(1))  # type: ignore[misc]  # a default binds it
        wait_until_asleep(thread)
        result = manager.terminate_process(process.pid)
        thread.join(5)

        assert not thread.is_alive()
        assert result.is_success
        if not isinstance(outcome[0], RingClosedError):
            assert [done.result for done in outcome[0]] == [-errno.ECANCELED]  # type: ignore[attr-defined]  # completions


def test_what_a_thread_left_in_flight_is_drained(
    manager: ProcessManager, iouring: IoUringManager, pipe: tuple[int, int]
) -> None:
    """Submitted by a thread that has ended, operations are cancelled and freed all the same."""
    process = manager.create_process("orphans")
    ring = iouring.create_ring(process.pid, 8)

    def work() -> None:
        for _ in range(4):
            ring.read(pipe[0], 1)
        ring.submit()

    thread, _ = in_thread(work)
    thread.join()

    assert manager.terminate_process(process.pid).is_success


@pytest.mark.parametrize("call", ["nop", "submit", "reap"])
def test_a_closed_ring_is_an_error_never_a_crash(
    manager: ProcessManager, iouring: IoUringManager, call: str
) -> None:
    """Its memory is unmapped, and nothing touches it."""
    process = manager.create_process("closed")
    ring = iouring.create_ring(process.pid, 8)
    ring.nop()
    manager.terminate_process(process.pid)

    with pytest.raises(RingClosedError, match="make a new one"):
        getattr(ring, call)()
    assert ring.closed
    assert ring.fileno() == -1
    assert ring.drain() == 0
    assert ring.release() is Outcome.ALREADY_GONE


def test_use_races_termination(
    manager: ProcessManager, iouring: IoUringManager, pipe: tuple[int, int]
) -> None:
    """Threads that submit and reap while the owner is terminated get errors, nothing worse."""
    for _ in range(30):
        process = manager.create_process("race")
        ring = iouring.create_ring(process.pid, 4)
        started = threading.Barrier(3)

        def use(ring: IoUring = ring, started: threading.Barrier = started) -> int:
            started.wait()
            count = 0
            try:
                while True:
                    ring.nop()
                    ring.read(pipe[0], 8)
                    count += len(ring.reap(1, timeout=1))
            except RingFullError:
                return -1
            except RingClosedError:
                return count

        workers = [in_thread(use) for _ in range(2)]
        started.wait()
        result = manager.terminate_process(process.pid)
        for thread, outcome in workers:
            thread.join(5)

            assert isinstance(outcome[0], int), outcome
        assert result.is_success, result.errors


def test_the_descriptor_is_good_for_event_loops(ring: IoUring, pipe: tuple[int, int]) -> None:
    """It becomes readable when there are completions to reap."""
    poll = select.poll()
    poll.register(ring, select.POLLIN)
    ring.read(pipe[0], 1)
    ring.submit()

    assert poll.poll(0) == []

    os.write(pipe[1], b"x")

    assert poll.poll(5000) == [(ring.fileno(), select.POLLIN)]

    ring.reap(1)

    assert poll.poll(0) == []


def test_many_rings_for_one_process(manager: ProcessManager, iouring: IoUringManager) -> None:
    """A second create_ring replaced the first unseen: each is its own, and all are freed."""
    process = manager.create_process("many")
    rings = [iouring.create_ring(process.pid, 1 << number) for number in range(6)]

    assert len({ring.fileno() for ring in rings}) == 6

    result = manager.terminate_process(process.pid)

    assert result.stats.by_type == {"rings": 6}
    assert all(ring.closed for ring in rings)


def test_close_is_owner_checked_and_idempotent(
    manager: ProcessManager, iouring: IoUringManager, pipe: tuple[int, int]
) -> None:
    """By the manager, by the ring, by `with`; only its owner may."""
    a, b = manager.create_process("a"), manager.create_process("b")
    first, second, third = (iouring.create_ring(a.pid, 2) for _ in range(3))
    first.read(pipe[0], 1)
    first.submit()
    with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
        iouring.close(b.pid, first)
    with pytest.raises(TypeError, match="expected an IoUring"):
        iouring.close(a.pid, cast("IoUring", 3))
    iouring.close(a.pid, first)
    iouring.close(a.pid, first)
    second.close()
    with third:
        third.nop()

    assert manager.terminate_process(a.pid).stats.resources_freed == 0


def test_a_forked_child_owns_nothing(
    manager: ProcessManager, iouring: IoUringManager, pipe: tuple[int, int]
) -> None:
    """The child's cleanup leaves the parent's ring, and what is in flight, alone."""
    process = manager.create_process("parent")
    ring = iouring.create_ring(process.pid, 4)
    ring.read(pipe[0], 5)
    ring.submit()

    def child() -> None:
        assert ring.closed
        assert not manager.orchestrator.has_resources(process.pid)
        assert manager.orchestrator.cleanup_process(process.pid).stats.resources_freed == 0
        ring.close()
        with pytest.raises(RingClosedError, match="the parent's"):
            ring.nop()

    assert exit_code_of_fork(child) == 0

    os.write(pipe[1], b"alive")

    assert [bytes(done.data) for done in ring.reap(1)] == [b"alive"]


def test_a_forgotten_ring_is_closed(iouring: IoUringManager) -> None:
    """A manager that is dropped with an idle ring leaves nothing behind."""
    ring = type(iouring)().create_ring(1, 4)
    ring.nop()
    ring.reap(1)

    assert ring.fileno() in KernelView.take().fds


def test_what_is_in_flight_outlives_a_forgotten_ring(iouring: IoUringManager) -> None:
    """Dropped without a cleanup, buffers that the kernel may write to are never freed."""
    script = """
import ctypes, gc, os, sys
from probate_rings import IoUringManager

reader, writer = os.pipe()
manager = IoUringManager()
ring = manager.create_ring(1, 4)
buffer = bytearray(4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
ring.read(reader, buffer)
ring.submit()
del manager, ring, buffer
gc.collect()
others = [bytearray(4096) for _ in range(1000)]
os.write(writer, b"late")
while ctypes.string_at(address, 4) != b"late":
    pass
assert others == [bytearray(4096)] * 1000
"""
    ran = subprocess.run([sys.executable, "-c", script], check=False, timeout=20)

    assert ran.returncode == 0
