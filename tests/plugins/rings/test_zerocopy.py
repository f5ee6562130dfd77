"""Zero-copy rings within one OS process: queues, blocks, waiting, closing."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from threads import in_thread, wait_until_blocked

from probate import BusyResourceError, NotOwnedError, ProcessManager, ProcessTerminatedError
from probate.testing.witness import KernelView
from probate_rings import RingClosedError, ZeroCopyIpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate_rings import ZeroCopyRing

pytestmark = pytest.mark.usefixtures("nothing_remains")


def send(ring: ZeroCopyRing, data: bytes) -> None:
    block = ring.reserve(timeout=5)
    assert block is not None
    block[: len(data)] = data
    ring.submit(len(data), block)


def receive(ring: ZeroCopyRing) -> bytes:
    with ring.receiving(timeout=5) as message:
        return bytes(message)


def reserved(ring: ZeroCopyRing) -> memoryview:
    block = ring.reserve()
    assert block is not None
    return block


def received(ring: ZeroCopyRing) -> memoryview:
    message = ring.receive()
    assert message is not None
    return message


def blocked_in_poll(thread: threading.Thread) -> bool:
    """Whether the kernel has a thread asleep in poll (7 on x86-64, syscall(2))."""
    return Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().split()[0] == "7"


def wait_until_asleep(thread: threading.Thread) -> None:
    for _ in range(5000):
        if blocked_in_poll(thread):
            return
        threading.Event().wait(0.001)
    pytest.fail("the thread never slept")


def test_messages_arrive_in_order_and_unharmed(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """Through the owner's end and the peer's, many times round the ring."""
    process = manager.create_process("both")
    ring = zerocopy.create_ring(process.pid, slots=3, block_size=10)
    peer = zerocopy.attach(process.pid, ring.filenos())

    for number in range(50):
        send(ring, b"%d" % number)
        send(ring, b"")

        assert receive(peer) == b"%d" % number
        assert receive(peer) == b""


def test_nothing_is_copied(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """The receiver's view shows what is in the memfd, at the place where it was written."""
    process = manager.create_process("copy")
    ring = zerocopy.create_ring(process.pid, slots=4)
    peer = zerocopy.attach(process.pid, ring.filenos())
    send(ring, b"written once")
    message = received(peer)
    memfd = Path(f"/proc/self/fd/{ring.fileno()}")
    place = memfd.read_bytes().index(b"written once")
    with memfd.open("r+b") as file:
        file.seek(place)
        file.write(b"WRITTEN")

    assert bytes(message) == b"WRITTEN once"
    assert memfd.read_bytes().count(b" once") == 1
    assert message.readonly


def test_one_end_can_be_both(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """Threads of one process can use the owner's end alone."""
    process = manager.create_process("loop")
    ring = zerocopy.create_ring(process.pid, slots=2, block_size=8)
    thread, outcome = in_thread(lambda: [receive(ring) for _ in range(100)])
    for number in range(100):
        send(ring, bytes([number]))
    thread.join(10)

    assert outcome == [[bytes([number]) for number in range(100)]]


def test_full_and_empty(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """Without a block, or a message, None comes at once or after the timeout."""
    process = manager.create_process("full")
    ring = zerocopy.create_ring(process.pid, slots=2)
    peer = zerocopy.attach(process.pid, ring.filenos())
    send(ring, b"1")
    send(ring, b"2")

    assert ring.reserve() is None
    assert ring.reserve(timeout=0.01) is None
    with pytest.raises(TimeoutError, match="no block came free"), ring.sending(timeout=0.01):
        pass

    first, second = received(peer), received(peer)

    assert peer.receive() is None
    assert peer.receive(timeout=0.01) is None
    with pytest.raises(TimeoutError, match="no message came"), peer.receiving(timeout=0.01):
        pass

    peer.complete(second)
    peer.complete(first)

    assert ring.reserve() is not None


def test_blocks_are_cleared_before_reuse(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """A block never shows what an earlier message, or its receiver's peer, left in it."""
    process = manager.create_process("clear")
    for block_size in (1, 100, 1 << 16, (1 << 17) + 3):
        ring = zerocopy.create_ring(process.pid, slots=1, block_size=block_size)
        for length in (block_size, 0, block_size // 2):
            block = reserved(ring)

            assert bytes(block) == bytes(block_size)

            block[:] = b"s" * block_size
            ring.submit(length)
            ring.complete(received(ring))


def test_a_message_outlives_its_sender(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """A receiver read memory of a dead sender, recycled to a third: it belongs to the queue."""
    sender, receiver = manager.create_process("sender"), manager.create_process("receiver")
    ring = zerocopy.create_ring(sender.pid, slots=4, block_size=64)
    peer = zerocopy.attach(receiver.pid, ring.filenos())
    for text in (b"in hand", b"on the way"):
        send(ring, text)
    in_hand = received(peer)
    manager.terminate_process(sender.pid)
    third = manager.create_process("third")
    recycled = zerocopy.create_ring(third.pid, slots=4, block_size=64)
    for _ in range(4):
        reserved(recycled)[:] = b"x" * 64

    assert bytes(in_hand) == b"in hand"

    peer.complete()

    assert receive(peer) == b"on the way"
    with pytest.raises(RingClosedError, match="nothing more will come"):
        peer.receive(timeout=None)


def test_a_peers_death_leaves_the_owners_end(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """Owner is not user: what the peer sent is received still, and the memory stays."""
    owner, user = manager.create_process("owner"), manager.create_process("user")
    ring = zerocopy.create_ring(owner.pid)
    peer = zerocopy.attach(user.pid, ring.filenos())
    send(peer, b"last words")
    result = manager.terminate_process(user.pid)

    assert result.stats.resources_freed == 1
    assert not ring.closed
    assert receive(ring) == b"last words"
    with pytest.raises(RingClosedError, match="nothing more will come"):
        ring.receive()


def test_a_sender_learns_that_the_receiver_is_gone(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """Sending what nobody would receive is an error, at once."""
    owner, user = manager.create_process("owner"), manager.create_process("user")
    ring = zerocopy.create_ring(owner.pid)
    peer = zerocopy.attach(user.pid, ring.filenos())
    block = reserved(ring)
    manager.terminate_process(user.pid)

    with pytest.raises(RingClosedError, match="the other end is closed"):
        ring.submit(1, block)
    with pytest.raises(RingClosedError, match="the other end is closed"):
        ring.reserve()
    assert peer.closed


def test_blocks_go_back_and_forth_in_any_order(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """Several blocks can be out at both ends; one that is abandoned is free again."""
    process = manager.create_process("any")
    ring = zerocopy.create_ring(process.pid, slots=3, block_size=4)
    blocks = [reserved(ring) for _ in range(3)]
    with pytest.raises(ValueError, match="3 blocks are reserved: say which"):
        ring.submit(1)
    for number in (2, 0):
        blocks[number][:1] = bytes([number])
        ring.submit(1, blocks[number])
    ring.abandon(blocks[1])
    first, second = received(ring), received(ring)

    assert (bytes(first), bytes(second)) == (b"\2", b"\0")

    ring.complete(second)
    ring.complete(first)
    with ring.sending() as block:
        assert len(block) == 4
    with pytest.raises(ValueError, match="released"):
        block[0] = 1
    assert len([reserved(ring) for _ in range(3)]) == 3
    assert ring.reserve() is None


def test_what_was_sent_or_completed_is_out_of_reach(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """A view is released with its block, so that nobody writes into another's message."""
    process = manager.create_process("reach")
    ring = zerocopy.create_ring(process.pid)
    block = reserved(ring)
    here, there = socket.socketpair()
    with here, there:
        thread, _ = in_thread(lambda: here.recv_into(block))
        wait_until_blocked(thread)
        with pytest.raises(BufferError):
            ring.submit(1)
        there.send(b"x")
        thread.join(5)
    ring.submit(1)
    message = received(ring)
    ring.complete()

    for view in (block, message):
        with pytest.raises(ValueError, match="released"):
            bytes(view)
    with pytest.raises(ValueError, match="0 blocks are received"):
        ring.complete()
    with pytest.raises(ValueError, match="not a block that this end has received"):
        ring.complete(message)


def test_a_ring_goes_one_way(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """The second sender, or receiver, is refused: it would corrupt the queue."""
    process = manager.create_process("way")
    ring = zerocopy.create_ring(process.pid)
    peer = zerocopy.attach(process.pid, ring.filenos())
    send(ring, b"x")
    receive(peer)

    with pytest.raises(ValueError, match="the other end sends already"):
        peer.reserve()
    with pytest.raises(ValueError, match="the other end receives already"):
        ring.receive()


def test_sleepers_are_woken_by_what_they_wait_for(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """A receiver sleeps until a message comes, a sender until a block is free."""
    process = manager.create_process("sleep")
    ring = zerocopy.create_ring(process.pid, slots=1)
    peer = zerocopy.attach(process.pid, ring.filenos())
    thread, outcome = in_thread(lambda: bytes(peer.receive(timeout=None) or b""))
    wait_until_asleep(thread)
    send(ring, b"wake up")
    thread.join(5)

    assert outcome == [b"wake up"]

    thread, outcome = in_thread(lambda: len(ring.reserve(timeout=None) or b""))
    wait_until_asleep(thread)
    peer.complete()
    thread.join(5)

    assert outcome == [4096]


@pytest.mark.parametrize("end", ["own", "other"])
@pytest.mark.parametrize("what", ["receive", "reserve"])
def test_termination_wakes_sleepers(
    manager: ProcessManager, zerocopy: ZeroCopyIpc, what: str, end: str
) -> None:
    """Nobody waits for ever for a dead owner: RingClosedError, at either end."""
    owner, user = manager.create_process("owner"), manager.create_process("user")
    ring = zerocopy.create_ring(owner.pid, slots=1)
    peer = zerocopy.attach(user.pid, ring.filenos())
    sleeper = ring if end == "own" else peer
    if what == "reserve":
        send(sleeper, b"full")
    thread, outcome = in_thread(lambda: getattr(sleeper, what)(timeout=None))
    wait_until_asleep(thread)

    result = manager.terminate_process(owner.pid)
    thread.join(5)

    assert not thread.is_alive()
    assert isinstance(outcome[0], RingClosedError)
    assert result.is_success


def test_several_threads_queue_up(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """Four senders and four receivers at two ends: nothing is lost, nothing comes twice."""
    process = manager.create_process("many")
    ring = zerocopy.create_ring(process.pid, slots=4, block_size=8)
    peer = zerocopy.attach(process.pid, ring.filenos())

    def produce(first: int) -> None:
        for number in range(first, 2000, 4):
            send(ring, number.to_bytes(8, "little"))

    def consume() -> list[int]:
        return [int.from_bytes(receive(peer), "little") for _ in range(500)]

    producers = [in_thread(lambda first=first: produce(first)) for first in range(4)]  # type: ignore[misc]  # a default binds it
    consumers = [in_thread(consume) for _ in range(4)]
    for thread, _ in (*producers, *consumers):
        thread.join(20)

    numbers: list[int] = [number for _, outcome in consumers for number in outcome[0]]  # type: ignore[attr-defined]  # what consume returns
    assert sorted(numbers) == list(range(2000))


def test_close_gives_everything_back(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """By the manager, by the ring itself, by `with`; closing twice is closing once."""
    process = manager.create_process("close")
    before = KernelView.take()
    rings = [zerocopy.create_ring(process.pid) for _ in range(3)]
    names = {entry.rpartition("/")[2] for entry in KernelView.take().shared_maps}

    assert "memfd:probate-ring (deleted)" in names

    zerocopy.close(process.pid, rings[0])
    zerocopy.close(process.pid, rings[0])
    rings[1].close()
    rings[1].close()
    with rings[2]:
        pass

    assert before.changes() == []
    assert [ring.filenos() for ring in rings] == [()] * 3
    assert rings[2].fileno() == -1
    assert manager.terminate_process(process.pid).stats.resources_freed == 0


@pytest.mark.parametrize(
    "use",
    [
        lambda ring, block: ring.reserve(),
        lambda ring, block: ring.submit(0),
        lambda ring, block: ring.abandon(block),
        lambda ring, block: ring.receive(),
        lambda ring, block: ring.complete(block),
    ],
)
def test_a_closed_ring_is_an_error_never_a_crash(
    manager: ProcessManager, zerocopy: ZeroCopyIpc, use: Callable[[Any, Any], object]
) -> None:
    """The memory is gone, so nothing touches it; the views of blocks are released."""
    process = manager.create_process("closed")
    ring = zerocopy.create_ring(process.pid)
    block = reserved(ring)
    manager.terminate_process(process.pid)

    with pytest.raises(RingClosedError, match="closed"):
        use(ring, block)
    with pytest.raises(ValueError, match="released"):
        block[0] = 1


def test_a_block_in_use_keeps_the_ring_busy(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """A numpy array on a block would point to nothing: BUSY, and freed as soon as it is gone."""
    process = manager.create_process("array")
    ring = zerocopy.create_ring(process.pid)
    fds = set(ring.filenos())
    array = np.frombuffer(reserved(ring), np.uint8)

    result = manager.terminate_process(process.pid)

    assert [error.outcome for error in result.errors] == ["busy"]
    assert "numpy" in result.errors[0].message
    assert result.stats.resources_freed == 0
    assert int(array[0]) == 0
    assert not fds & set(KernelView.take().fds)

    del array
    result = manager.orchestrator.cleanup_process(process.pid)

    assert result.is_success
    assert result.stats.by_type == {"rings": 1}


def test_a_busy_ring_stays_owned_when_closed_by_hand(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """`close` raises, nothing is lost, and it works once the slice is gone."""
    process = manager.create_process("slice")
    ring = zerocopy.create_ring(process.pid)
    part = reserved(ring)[:10]
    with pytest.raises(BusyResourceError, match="let go of it"):
        zerocopy.close(process.pid, ring)

    assert manager.orchestrator.has_resources(process.pid)

    part.release()
    zerocopy.close(process.pid, ring)

    assert not manager.orchestrator.has_resources(process.pid)


def test_one_owner_cannot_close_anothers_ring(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """Release is owner-checked."""
    a, b = manager.create_process("a"), manager.create_process("b")
    ring = zerocopy.create_ring(a.pid)

    with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
        zerocopy.close(b.pid, ring)

    assert not ring.closed


def test_the_current_process_is_meant_where_no_pid_is_given(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """Within `with manager.process(...)`."""
    with manager.process("current") as process:
        ring = zerocopy.create_ring(slots=2)
        peer = zerocopy.attach(ring.filenos())

        assert ring.slots == 2
        assert process.usage()["rings"].count == 2

    assert ring.closed
    assert peer.closed


def test_a_terminated_owner_gets_nothing(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """Neither a ring nor an end of one."""
    alive, dead = manager.create_process("alive"), manager.create_process("dead")
    ring = zerocopy.create_ring(alive.pid)
    manager.terminate_process(dead.pid)

    with pytest.raises(ProcessTerminatedError):
        zerocopy.create_ring(dead.pid)
    with pytest.raises(ProcessTerminatedError):
        zerocopy.attach(dead.pid, ring.filenos())


def test_a_forgotten_ring_leaves_no_descriptors() -> None:
    """A manager that is dropped with its rings closes what the mapping's finaliser does not."""
    ring = ZeroCopyIpc().create_ring(1)

    assert set(ring.filenos()) <= set(KernelView.take().fds)
