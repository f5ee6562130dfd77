"""Nothing that others use is pulled from under them: loops let go first, sharers go on."""

from __future__ import annotations

import asyncio
import os
import select
from multiprocessing import Pipe
from multiprocessing.connection import Client, Connection, Listener
from typing import TYPE_CHECKING, Any

import pytest
from ipc_peers import await_sleep, peer
from threads import in_thread

from probate import BusyResourceError, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import Process, ProcessManager
    from probate_ipc import IpcManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


# -- polled ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["async", "on the loop", "on another thread", "by hand"])
def test_whoever_reads_a_stream_of_a_pipe_gets_its_end(
    ipc: IpcManager, owner: Process, how: str
) -> None:
    """It waited for ever, and the next file with the number was taken for the pipe (uvloop#653)."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reader, _writer = ipc.pipe(owner.pid)
        number = reader.fileno()
        stream = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), reader)
        waiting = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)

        if how == "by hand":
            ipc.close(owner.pid, reader)
        if how == "on the loop":
            result = owner.terminate()
        elif how == "on another thread":
            result = await asyncio.to_thread(owner.terminate)
        else:
            result = await owner.terminate_async()

        assert str(result).endswith(
            f"{2 - (how == 'by hand')} resources freed, 0 bytes freed, 0 errors"
        )
        assert await asyncio.wait_for(waiting, 10) == b""

        # The next with the number is not taken for it.
        stranger = os.eventfd(1)
        if stranger != number:
            os.dup2(stranger, number, inheritable=False)
            os.close(stranger)
        seen = loop.create_future()
        loop.add_reader(number, seen.set_result, None)
        await asyncio.wait_for(seen, 10)
        loop.remove_reader(number)
        os.close(number)

    asyncio.run(scenario())


def connection(ipc: IpcManager, pid: int) -> tuple[Any, int]:
    """A connection."""
    first, _ = ipc.connection_pair(pid)
    return first, first.fileno()


def queue(ipc: IpcManager, pid: int) -> tuple[Any, int]:
    """A POSIX queue."""
    made = ipc.create_posix_queue(pid, max_messages=1, max_message_size=8)
    return made, made.fileno()


def writer(ipc: IpcManager, pid: int) -> tuple[Any, int]:
    """An end of a pipe."""
    _, end = ipc.pipe(pid)
    return end, end.fileno()


@pytest.mark.parametrize("make", [connection, queue, writer])
def test_a_loop_lets_go_of_what_it_polls(
    ipc: IpcManager, owner: Process, make: Callable[[IpcManager, int], tuple[Any, int]]
) -> None:
    """By `add_reader` and `add_writer`: the number is free for others, and polled by nobody."""

    async def scenario() -> None:
        loop: Any = asyncio.get_running_loop()
        _, number = make(ipc, owner.pid)
        loop.add_reader(number, pytest.fail)
        loop.add_writer(number, lambda: None)

        result = await owner.terminate_async()

        assert result.is_success
        assert number not in loop._selector.get_map()

    asyncio.run(scenario())


def test_what_a_loop_does_not_let_go_of_is_busy_and_says_so(
    manager: ProcessManager, ipc: IpcManager, owner: Process
) -> None:
    """Neither closed nor counted, and tried again."""
    reader, _ = ipc.pipe(owner.pid)
    with select.epoll() as epoll:
        epoll.register(reader, select.EPOLLIN)
        with pytest.raises(BusyResourceError, match="polled by epoll instance"):
            ipc.close(owner.pid, reader)

        result = owner.terminate()

        assert [error.outcome for error in result.errors] == [Outcome.BUSY]
        assert f"epoll instance {epoll.fileno()}" in result.errors[0].message
        assert not reader.closed

    assert manager.orchestrator.cleanup_process(owner.pid, grace=0).is_success
    assert reader.closed


# -- shared ------------------------------------------------------------------

_SERVER = """
import os, sys
from multiprocessing.connection import Connection
import socket
listener = socket.socket(fileno=int(sys.argv[1]))
print("ready", flush=True)
while True:
    Connection(listener.accept()[0].detach()).send("child")
"""


def test_a_listener_that_a_child_has_inherited_goes_on_there(
    owner: Process, tmp_path: Path
) -> None:
    """shutdown(2) acts on what is shared: the child's listener died with ours (twisted#2004)."""
    listener = Listener(("127.0.0.1", 0))
    owner.adopt(listener)
    address = listener.address
    number = listener._listener._socket.fileno()  # type: ignore[attr-defined]
    with peer(_SERVER, number, pass_fds=[number]):
        assert owner.terminate().is_success
        with Client(address) as client:
            assert client.recv() == "child"


def test_a_connection_that_another_owner_has_duplicated_goes_on(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """Only our number is closed: the dup of another owner, and its peer, hear nothing of it."""
    old, new, third = (manager.create_process(name) for name in ("old", "new", "peer"))
    mine, theirs = ipc.connection_pair(old.pid, peer=third.pid)
    twin = Connection(os.dup(mine.fileno()))
    new.adopt(twin)

    assert old.terminate().is_success

    twin.send("hello")
    assert theirs.recv() == "hello"


def test_a_thread_that_is_blocked_in_what_others_share_is_busy(
    manager: ProcessManager, ipc: IpcManager, owner: Process
) -> None:
    """To wake it would harm them: it is left as it is, and the account has the way out."""
    mine, theirs = ipc.connection_pair(owner.pid)
    other = manager.create_process("other")
    ipc.table.transfer(owner.pid, ipc.table.find(owner.pid, theirs), other.pid)
    twin = os.dup(mine.fileno())
    thread, outcome = in_thread(mine.recv)
    await_sleep(thread.native_id)

    result = owner.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert f"this process has it open as number {twin}, too" in result.errors[0].message

    theirs.send("hello")
    thread.join(10)

    assert outcome == ["hello"]
    assert manager.orchestrator.cleanup_process(owner.pid, grace=0).is_success
    assert mine.closed
    os.close(twin)


def test_a_thread_that_is_blocked_in_a_pipe_is_busy_until_its_other_end_is_closed(
    manager: ProcessManager, owner: Process
) -> None:
    """Nothing else wakes it: a close would be none (close(2))."""
    reader, other_end = Pipe(duplex=False)
    owner.adopt(reader)
    thread, outcome = in_thread(reader.recv)
    await_sleep(thread.native_id)

    result = owner.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "the other end of its pipe wakes" in result.errors[0].message

    other_end.close()
    thread.join(10)

    assert isinstance(outcome[0], EOFError)
    assert manager.orchestrator.cleanup_process(owner.pid, grace=0).is_success
