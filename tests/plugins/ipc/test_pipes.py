"""Pipes and connections: real descriptors, and both sorts of ends."""

from __future__ import annotations

import errno
import os
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
from ipc_peers import await_sleep, peer
from threads import in_thread

from probate import BusyResourceError, NotOwnedError, ProcessManager
from probate_ipc import PipeClosedError, PipeReader, PipeWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probate_ipc import IpcManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_a_pipe_carries_bytes_and_ends_with_its_owner(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """Both ends are made, used, and closed by one termination."""
    process = manager.create_process("pipe")
    reader, writer = ipc.pipe(process.pid)
    writer.write(b"hello")

    assert reader.read(64) == b"hello"

    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.by_type == {"ipc": 2}
    assert reader.closed
    assert writer.closed


def test_the_reader_sees_end_of_file_when_the_writer_dies(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """Each end has its own owner; what was written is read first, then comes end of file."""
    consumer, producer = manager.create_process("consumer"), manager.create_process("producer")
    reader, writer = ipc.pipe(consumer.pid, writer=producer.pid)
    writer.write(b"last words")
    manager.terminate_process(producer.pid)

    assert reader.read(64) == b"last words"
    assert reader.read(64) == b""
    assert not reader.closed


def test_the_writer_sees_a_broken_pipe_when_the_reader_dies(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """EPIPE, as from any pipe."""
    consumer, producer = manager.create_process("consumer"), manager.create_process("producer")
    _, writer = ipc.pipe(consumer.pid, writer=producer.pid)
    manager.terminate_process(consumer.pid)

    with pytest.raises(BrokenPipeError):
        writer.write(b"anybody?")


@pytest.mark.parametrize("end", ["read", "write"])
def test_a_thread_blocked_in_the_dying_end_is_woken(
    manager: ProcessManager, ipc: IpcManager, end: str
) -> None:
    """Closing a descriptor wakes nobody, so nobody sleeps in it: the thread gets an error."""
    dying, living = manager.create_process("dying"), manager.create_process("living")
    if end == "read":
        reader, _ = ipc.pipe(dying.pid, writer=living.pid)
        thread, outcome = in_thread(lambda: reader.read(1))
    else:
        _, writer = ipc.pipe(living.pid, writer=dying.pid)
        thread, outcome = in_thread(lambda: writer.write(b"x" * 1_000_000))
    await_sleep(thread.native_id)
    result = manager.terminate_process(dying.pid)
    thread.join(5)

    assert isinstance(outcome[0], PipeClosedError)
    assert result.stats.by_type == {"ipc": 1}


def test_a_thread_blocked_at_the_other_end_gets_end_of_file(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """Peers see end of file; nobody waits for ever."""
    consumer, producer = manager.create_process("consumer"), manager.create_process("producer")
    reader, _ = ipc.pipe(consumer.pid, writer=producer.pid)
    thread, outcome = in_thread(reader.readall)
    await_sleep(thread.native_id)
    manager.terminate_process(producer.pid)
    thread.join(5)

    assert outcome == [b""]


def test_a_reader_in_another_os_process_gets_end_of_file(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """A child blocked in read(2) on an inherited end is woken by the writer's death."""
    process = manager.create_process("writer")
    reader, _ = ipc.pipe(process.pid)
    script = "import os,sys\nprint('ready', flush=True)\nprint(os.read(int(sys.argv[1]), 1))"
    with peer(script, reader.fileno(), pass_fds=[reader.fileno()]) as child:
        manager.terminate_process(process.pid)

        assert child.said() == "b''"


def test_ends_stay_blocking_and_are_not_inherited_by_exec(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """They can be handed to a child that expects an ordinary pipe."""
    reader, writer = ipc.pipe(manager.create_process("plain").pid)

    assert [os.get_blocking(end.fileno()) for end in (reader, writer)] == [True, True]
    assert [os.get_inheritable(end.fileno()) for end in (reader, writer)] == [False, False]


def test_large_writes_arrive_whole(manager: ProcessManager, ipc: IpcManager) -> None:
    """More than a pipe holds goes through in parts, and in order."""
    reader, writer = ipc.pipe(manager.create_process("large").pid)
    data = bytes(range(256)) * 2000
    thread, outcome = in_thread(lambda: writer.write(data))

    got = b""
    while len(got) < len(data):
        got += reader.read(100_000) or b""
    thread.join(5)

    assert got == data
    assert outcome == [len(data)]


def test_a_kernel_without_nonblocking_reads_of_pipes(
    manager: ProcessManager, ipc: IpcManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where preadv2 answers EOPNOTSUPP data goes through all the same, and the end wakes."""

    def unsupported(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "as an older kernel")

    monkeypatch.setattr(os, "preadv", unsupported)
    monkeypatch.setattr(os, "pwritev", unsupported)
    process = manager.create_process("old kernel")
    reader, writer = ipc.pipe(process.pid)
    data = bytes(range(256)) * 1000
    sender, sent = in_thread(lambda: writer.write(data))
    got = b""
    while len(got) < len(data):
        got += reader.read(100_000) or b""
    sender.join(5)

    assert got == data
    assert sent == [len(data)]

    thread, outcome = in_thread(lambda: reader.read(1))
    await_sleep(thread.native_id)
    manager.terminate_process(process.pid)
    thread.join(5)

    assert isinstance(outcome[0], PipeClosedError)


def test_an_end_that_does_not_block_says_so(manager: ProcessManager, ipc: IpcManager) -> None:
    """None is "would block" for a file that its owner has made non-blocking (PEP 3116)."""
    reader, writer = ipc.pipe(manager.create_process("nonblocking").pid)
    for end in (reader, writer):
        os.set_blocking(end.fileno(), False)

    assert reader.read(1) is None
    assert reader.read() is None

    written = writer.write(b"x" * 1_000_000)

    assert written is not None
    assert written < 1_000_000
    assert writer.write(b"x") is None


def test_quiesce_refuses_writes_and_lets_the_reader_drain(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """From quiesce on nothing is sent; what was sent can still be read."""
    process = manager.create_process("quiesced")
    reader, writer = ipc.pipe(process.pid)
    writer.write(b"before")

    assert ipc.quiesce(process.pid) == []
    with pytest.raises(PipeClosedError):
        writer.write(b"after")
    assert reader.read(64) == b"before"


def test_a_thread_that_does_not_leave_makes_it_busy(
    manager: ProcessManager, ipc: IpcManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never closed under a thread inside: BUSY, and owned under its id until it has left."""
    monkeypatch.setattr("probate_ipc.pipe.PATIENCE", 0.01)
    process = manager.create_process("stuck")
    reader, writer = ipc.pipe(process.pid)
    ipc.close(process.pid, writer)
    resource_id = ipc.table.find(process.pid, reader)
    reader._interruptible.__enter__()

    with pytest.raises(BusyResourceError):
        ipc.close(process.pid, reader)
    assert ipc.table.find(process.pid, reader) == resource_id

    reader._interruptible.__exit__(None, None, None)
    ipc.close(process.pid, reader)

    assert reader.closed


def test_one_owner_cannot_close_anothers_end(manager: ProcessManager, ipc: IpcManager) -> None:
    """B closed A's: release is owner-checked."""
    a, b = manager.create_process("a"), manager.create_process("b")
    reader, writer = ipc.pipe(a.pid, writer=b.pid)

    with pytest.raises(NotOwnedError, match=f"process {b.pid} does"):
        ipc.close(a.pid, writer)
    with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
        ipc.close(b.pid, reader)

    assert not reader.closed
    assert not writer.closed


@pytest.mark.parametrize("duplex", [True, False])
def test_connections_carry_objects(manager: ProcessManager, ipc: IpcManager, duplex: bool) -> None:
    """Plain multiprocessing connections; one-way ones refuse the other way."""
    process = manager.create_process("connected")
    first, second = ipc.connection_pair(process.pid, duplex=duplex)
    second.send({"a": 1})

    assert first.recv() == {"a": 1}

    if duplex:
        first.send("back")

        assert second.recv() == "back"
    else:
        with pytest.raises(OSError, match="read-only"):
            first.send("back")

    assert manager.terminate_process(process.pid).stats.by_type == {"ipc": 2}
    assert first.closed
    assert second.closed


@pytest.mark.parametrize("duplex", [True, False])
@pytest.mark.parametrize("dying_end", [0, 1])
def test_whoever_is_blocked_at_either_end_of_a_connection_is_woken(
    manager: ProcessManager, ipc: IpcManager, duplex: bool, dying_end: int
) -> None:
    """Both sorts are sockets, whose shutdown wakes the owner's thread and the peer's alike."""
    processes = [manager.create_process(name) for name in ("first", "second")]
    ends = ipc.connection_pair(processes[0].pid, peer=processes[1].pid, duplex=duplex)
    thread, outcome = in_thread(ends[0].recv_bytes)
    await_sleep(thread.native_id)
    manager.terminate_process(processes[dying_end].pid)
    thread.join(5)

    assert isinstance(outcome[0], (EOFError, OSError))


def test_closing_a_connection_leaves_a_childs_copy_alone(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """The parent closes its copy of the child's end, as multiprocessing has it: no shutdown."""
    process = manager.create_process("parent")
    mine, childs = ipc.connection_pair(process.pid)
    script = (
        "import os,sys\nfrom multiprocessing.connection import Connection\n"
        "c = Connection(int(sys.argv[1]))\nprint('ready', flush=True)\n"
        "print(c.recv())\n"
        "try: c.recv()\nexcept EOFError: print('eof')"
    )
    with peer(script, childs.fileno(), pass_fds=[childs.fileno()]) as child:
        ipc.close(process.pid, childs)
        mine.send("hello")
        manager.terminate_process(process.pid)

        assert child.said() == "hello\neof"


def test_a_pair_of_which_one_owner_is_dead_is_not_made(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """No half of a pair is left, whichever owner is refused."""
    living, dead = manager.create_process("living"), manager.create_process("dead")
    manager.terminate_process(dead.pid)

    for pid, other in ((living.pid, dead.pid), (dead.pid, living.pid)):
        with pytest.raises(Exception, match="terminat"):
            ipc.pipe(pid, writer=other)
        with pytest.raises(Exception, match="terminat"):
            ipc.connection_pair(pid, peer=other)

    assert living.pid not in ipc.table
    assert dead.pid not in ipc.table


def test_pairs_made_while_their_owners_die_leave_nothing(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """Acquiring races both owners' terminations, from threads: the kernel finds no descriptor."""
    for _ in range(60):
        pids = [manager.create_process(name).pid for name in ("a", "b")]
        start = threading.Barrier(3)
        made: list[tuple[PipeReader, PipeWriter]] = []

        def make(
            pids: Sequence[int] = pids,
            start: threading.Barrier = start,
            made: list[tuple[PipeReader, PipeWriter]] = made,
        ) -> None:
            start.wait()
            made.append(ipc.pipe(pids[0], writer=pids[1]))

        def end(pid: int, start: threading.Barrier = start) -> None:
            start.wait()
            manager.terminate_process(pid)

        threads = [in_thread(make), *(in_thread(partial(end, pid)) for pid in pids)]
        for thread, _ in threads:
            thread.join(5)

        assert not any(pid in ipc.table for pid in pids)
        for ends in made:
            assert all(each.closed for each in ends)
