"""Things made elsewhere: what is taken, and as whose."""

from __future__ import annotations

import asyncio
import concurrent.futures
import mmap
import multiprocessing
import queue
import socket
import tempfile
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any

import posix_ipc
import pytest
import sysv_ipc
from ipc_kernel import is_there, remove
from ipc_peers import await_sleep
from threads import in_thread

from probate import AlreadyOwnedError, ProcessManager, ProcessTerminatedError
from probate_ipc import InProcessQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate_ipc import IpcManager


def _natives() -> list[Any]:
    return [
        posix_ipc.MessageQueue(None, posix_ipc.O_CREX, max_messages=1),
        posix_ipc.Semaphore(None, posix_ipc.O_CREX),
        sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX),
        sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX),
    ]


@pytest.mark.parametrize("duplex", [True, False])
def test_a_connection_is_adopted_and_its_peer_sees_end_of_file(
    manager: ProcessManager, pid: int, duplex: bool, nothing_remains: None
) -> None:
    """Of both sorts, a socket pair's and a pipe's."""
    first, second = multiprocessing.Pipe(duplex)
    manager.orchestrator.adopt(pid, second)
    result = manager.terminate_process(pid)

    assert result.stats.by_type == {"ipc": 1}
    assert second.closed
    with pytest.raises(EOFError):
        first.recv()
    first.close()


def test_a_listener_is_adopted_and_stops_accepting(
    manager: ProcessManager, pid: int, nothing_remains: None
) -> None:
    """A thread blocked in accept is woken; nobody can connect any more; its path is gone."""
    listener = Listener(family="AF_UNIX")
    address = listener.address
    assert isinstance(address, str)
    manager.orchestrator.adopt(pid, listener)
    thread, outcome = in_thread(listener.accept)
    await_sleep(thread.native_id)
    result = manager.terminate_process(pid)
    thread.join(5)

    assert isinstance(outcome[0], OSError)
    assert result.stats.by_type == {"ipc": 1}
    assert not Path(address).exists()
    with pytest.raises(FileNotFoundError):
        Client(address)


def test_a_listeners_successor_keeps_its_path(
    manager: ProcessManager, pid: int, nothing_remains: None
) -> None:
    """The old server deleted its successor's path: device and inode tell."""
    folder = Path(tempfile.mkdtemp(prefix="probate-"))
    path = str(folder / "s")
    listener = Listener(path)
    manager.orchestrator.adopt(pid, listener)
    Path(path).unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(path)
        result = manager.terminate_process(pid)

        assert result.stats.by_type == {"ipc": 1}
        assert Path(path).exists()
    Path(path).unlink()
    folder.rmdir()


def test_named_things_are_adopted_as_by_a_user(
    manager: ProcessManager, pid: int, nothing_remains: None
) -> None:
    """Whoever made them may be another: closed here, and never removed."""
    natives = _natives()
    for native in natives:
        manager.orchestrator.adopt(pid, native)
    result = manager.terminate_process(pid)

    assert result.stats.by_type == {"ipc": 4}
    assert result.stats.bytes_freed == 0
    assert all(is_there(native) for native in natives)
    assert natives[0].mqd == -1

    for native in natives:
        remove(native)


def test_named_things_are_removed_if_adopted_as_the_owners(
    manager: ProcessManager, ipc: IpcManager, pid: int, nothing_remains: None
) -> None:
    """`as_owner=True` says that they are the process's."""
    natives = _natives()
    for native in natives:
        ipc.adopt(pid, native, as_owner=True)
    result = manager.terminate_process(pid)

    assert result.stats.by_type == {"ipc": 4}
    assert result.stats.bytes_freed > 0
    assert not any(is_there(native) for native in natives)


def test_a_thing_has_one_owner_however_it_is_wrapped(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """Neither the handle nor the native object in it is adopted twice."""
    queue = ipc.create_posix_queue(pid)
    other = manager.create_process("other").pid

    for each in (queue, queue.native):
        with pytest.raises(AlreadyOwnedError):
            manager.orchestrator.adopt(other, each)

    ipc.close(pid, queue.native)

    assert queue.closed


def test_a_queue_made_by_hand_is_adopted(manager: ProcessManager, pid: int) -> None:
    """Our own classes need no manager to be made."""
    made = InProcessQueue(3)
    manager.orchestrator.adopt(pid, made)
    manager.terminate_process(pid)

    assert made.closed


def _closed_natives() -> list[object]:
    queue, semaphore, sysv_queue, sysv_semaphore = _natives()
    for each in (queue, semaphore):
        each.unlink()
        each.close()
    sysv_queue.remove()
    sysv_semaphore.remove()
    first, second = multiprocessing.Pipe()
    first.close()
    second.close()
    listener = Listener(family="AF_UNIX")
    listener.close()
    by_hand = InProcessQueue(1)
    by_hand.close()
    return [queue, semaphore, sysv_queue, sysv_semaphore, first, listener, by_hand]


def test_what_is_closed_is_not_adopted(ipc: IpcManager, pid: int) -> None:
    """A clear error for each sort; and giving it back is nothing to do."""
    for closed in _closed_natives():
        with pytest.raises(ValueError, match="closed or removed"):
            ipc.adopt(pid, closed)
        ipc.close(pid, closed)

    assert pid not in ipc.table


@pytest.mark.parametrize(
    "make",
    [
        lambda: socket.socket(),
        lambda: mmap.mmap(-1, 10),
        tempfile.TemporaryFile,
        lambda: concurrent.futures.Future[None](),
        lambda: queue.Queue[int](),
        lambda: asyncio.Queue[int](),
        lambda: multiprocessing.get_context("spawn").SimpleQueue(),
        lambda: 3,
        lambda: "text",
        lambda: None,
    ],
)
def test_what_belongs_to_others_or_to_nobody_is_left_to_them(
    ipc: IpcManager, pid: int, make: Callable[[], Any]
) -> None:
    """None, so that the next kind is asked; what cannot be closed honestly is refused."""
    thing = make()

    assert ipc.adopt(pid, thing) is None
    assert pid not in ipc.table

    if hasattr(thing, "close"):
        thing.close()


def test_a_terminated_process_adopts_nothing(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """Late registration leaked for ever: it is refused, and the caller has the thing still."""
    manager.terminate_process(pid)
    first, second = multiprocessing.Pipe()
    with pytest.raises(ProcessTerminatedError):
        ipc.adopt(pid, first)

    assert not first.closed

    first.close()
    second.close()
