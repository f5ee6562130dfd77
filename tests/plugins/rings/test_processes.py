"""Zero-copy rings between two OS processes: ordering, waking, death; the kernel is the witness."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rings_peer
from rings_peer import check_message, peer, receive_all, send_all
from threads import in_thread

from probate.testing.witness import KernelView
from probate_rings import RingClosedError, UnsupportedMachineError, ZeroCopyIpc

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_rings import ZeroCopyRing

#: Messages each way, of varying length, numbered and checksummed.
MANY = 12_000

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.mark.parametrize("slots", [1, 64])
def test_thousands_of_messages_reach_another_process(
    manager: ProcessManager, zerocopy: ZeroCopyIpc, slots: int
) -> None:
    """In order, each once and unharmed; with one slot, both ends sleep and wake all the time."""
    process = manager.create_process("sender")
    ring = zerocopy.create_ring(process.pid, slots=slots, block_size=128)
    count = MANY if slots > 1 else MANY // 3
    with peer(ring, "receive") as other:
        send_all(ring, count)
        manager.terminate_process(process.pid)
        said, _ = other.communicate(timeout=30)

    assert int(said) == count
    assert other.returncode == 0


def test_thousands_of_messages_come_from_another_process(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """The other way round: the owner receives, until the sender closes its end."""
    process = manager.create_process("receiver")
    ring = zerocopy.create_ring(process.pid, slots=16, block_size=128)
    with peer(ring, "send", str(MANY)) as other:
        assert receive_all(ring) == MANY
        assert other.wait(10) == 0


def test_the_other_process_maps_the_same_memory(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """/proc shows one inode, mapped by both, and the descriptors passed are closed there."""
    process = manager.create_process("owner")
    ring = zerocopy.create_ring(process.pid)
    inode = os.fstat(ring.fileno()).st_ino
    with peer(ring, "receive") as other:
        maps = Path(f"/proc/{other.pid}/maps").read_text().splitlines()
        shared = [line for line in maps if "probate-ring" in line]

        assert len(shared) == 1
        assert shared[0].split()[1] == "rw-s"
        assert int(shared[0].split()[4]) == inode

        manager.terminate_process(process.pid)

        assert other.wait(10) == 0


@pytest.mark.parametrize("what", ["receive", "reserve"])
def test_a_killed_peer_is_noticed(
    manager: ProcessManager, zerocopy: ZeroCopyIpc, what: str
) -> None:
    """SIGKILL writes nothing into shared memory: the pidfd wakes whoever sleeps."""
    process = manager.create_process("owner")
    ring = zerocopy.create_ring(process.pid, slots=2)
    role = ("hold", "2") if what == "reserve" else ("send", "0")
    if what == "reserve":
        for number in range(2):
            with ring.sending() as block:
                ring.submit(rings_peer.write_message(block, number))
    with peer(ring, *role) as other:
        if what == "reserve":
            assert other.stdout is not None
            assert other.stdout.readline() == "2\n"
        else:
            # Stopped before it can close its end.
            other.send_signal(signal.SIGSTOP)
        thread, outcome = in_thread(lambda: getattr(ring, what)(timeout=None))
        other.kill()
        thread.join(10)

    assert not thread.is_alive()
    assert isinstance(outcome[0], RingClosedError)
    assert manager.terminate_process(process.pid).is_success


def test_what_a_killed_sender_has_sent_is_received(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """Message memory belongs to the queue until received; then the death is told."""
    process = manager.create_process("owner")
    ring = zerocopy.create_ring(process.pid, slots=8)
    with peer(ring, "send", "1000") as other:
        with ring.receiving() as message:
            check_message(message, 0)
        # Until it has filled the ring and sleeps for want of blocks.
        while int.from_bytes(_word(ring, 8), "little") < 9:
            assert other.poll() is None
        other.kill()
        other.wait()
        for number in range(1, 9):
            with ring.receiving() as message:
                check_message(message, number)
        with pytest.raises(RingClosedError, match="nothing more will come"):
            ring.receive()


def _word(ring: ZeroCopyRing, index: int) -> bytes:
    return os.pread(ring.fileno(), 8, index * 8)


def test_a_forked_child_owns_nothing_and_may_attach(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """In the child the parent's end is closed, and no doorbell rings; as a peer it is welcome."""
    process = manager.create_process("parent")
    ring = zerocopy.create_ring(process.pid)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert ring.closed
            assert not manager.orchestrator.has_resources(process.pid)
            assert manager.orchestrator.cleanup_process(process.pid).stats.resources_freed == 0
            ring.close()
            with pytest.raises(RingClosedError, match="attach"):
                ring.reserve()
            own = ZeroCopyIpc().attach(1, ring.filenos())
            with own.sending() as block:
                block[:5] = b"child"
                own.submit(5)
            code = 0
        finally:
            os._exit(code)
    with ring.receiving(timeout=10) as message:
        assert bytes(message) == b"child"
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert not ring.closed
    with pytest.raises(RingClosedError):
        ring.receive(timeout=10)


@pytest.mark.parametrize("machine", ["aarch64", "riscv64"])
def test_machines_of_weaker_order_are_refused(
    zerocopy: ZeroCopyIpc,
    manager: ProcessManager,
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
) -> None:
    """The stated rule elsewhere: no ring is made or attached, and the error says why."""
    process = manager.create_process("arm")
    ring = zerocopy.create_ring(process.pid)
    before = KernelView.take()
    uname = os.uname_result((*os.uname()[:4], machine))
    monkeypatch.setattr(os, "uname", lambda: uname)

    with pytest.raises(UnsupportedMachineError, match=machine):
        zerocopy.create_ring(process.pid)
    with pytest.raises(UnsupportedMachineError, match=machine):
        zerocopy.attach(process.pid, ring.filenos())
    assert before.changes() == []
