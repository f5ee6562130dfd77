"""Numbers that were closed elsewhere, and are a stranger's: left alone, whatever had them."""

from __future__ import annotations

import errno
import gc
import os
import resource
import threading
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Client, Listener
from typing import TYPE_CHECKING, Any

import posix_ipc
import pytest
from threads import in_thread

from probate import BusyResourceError, ResourceLimits
from probate_ipc import pipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate import Process, ProcessManager
    from probate_ipc import IpcManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@contextmanager
def stranger_in(number: int, folder: Path) -> Iterator[Callable[[], bool]]:
    """Close a number, and have another file get it, in one stroke; yields whether that has it."""
    file = os.open(folder / "stranger", os.O_CREAT | os.O_RDWR)
    status = os.fstat(file)
    os.dup2(file, number, inheritable=False)
    os.close(file)

    def is_there() -> bool:
        try:
            return os.path.samestat(os.fstat(number), status)
        except OSError:
            return False

    yield is_there
    os.close(number)


def connection(_ipc: IpcManager, process: Process, _folder: Path) -> tuple[Any, int]:
    """An adopted connection."""
    first, second = Pipe()
    second.close()
    process.adopt(first)
    return first, first.fileno()


def listener(_ipc: IpcManager, process: Process, folder: Path) -> tuple[Any, int]:
    """An adopted listener with a path."""
    thing = Listener(str(folder / "listener"))
    process.adopt(thing)
    return thing, thing._listener._socket.fileno()  # type: ignore[attr-defined]


def read_end(ipc: IpcManager, process: Process, _folder: Path) -> tuple[Any, int]:
    """One end of a pipe."""
    reader, writer = ipc.pipe(process.pid)
    ipc.close(process.pid, writer)
    return reader, reader.fileno()


def write_end(ipc: IpcManager, process: Process, _folder: Path) -> tuple[Any, int]:
    """The other."""
    reader, writer = ipc.pipe(process.pid)
    ipc.close(process.pid, reader)
    return writer, writer.fileno()


def queue(ipc: IpcManager, process: Process, _folder: Path) -> tuple[Any, int]:
    """A queue, which the process has made."""
    made = ipc.create_posix_queue(process.pid, max_messages=1, max_message_size=8)
    return made, made.fileno()


def adopted_queue(_ipc: IpcManager, process: Process, _folder: Path) -> tuple[Any, int]:
    """A queue, which it has not."""
    native = posix_ipc.MessageQueue(None, posix_ipc.O_CREX, max_messages=1, max_message_size=8)
    native.unlink()
    process.adopt(native)
    return native, native.mqd


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("make", [connection, listener, read_end, write_end, queue, adopted_queue])
def test_a_stranger_with_the_number_is_left_alone(
    ipc: IpcManager,
    owner: Process,
    tmp_path: Path,
    make: Callable[[IpcManager, Process, Path], tuple[Any, int]],
    by_hand: bool,
) -> None:
    """Closed elsewhere, the number was reused: we closed a stranger's (python-manhole#58)."""
    thing, number = make(ipc, owner, tmp_path)
    with stranger_in(number, tmp_path) as is_there:
        if by_hand:
            ipc.close(owner.pid, thing)

            assert owner.pid not in ipc.table

        result = owner.terminate()

        assert result.is_success
        # What has a name is given back by that, all the same.
        assert result.stats.resources_freed == (make in (listener, queue) and not by_hand)
        assert is_there()

        del thing
        gc.collect()

        assert is_there()


def test_the_path_of_a_listener_that_was_closed_elsewhere_goes_and_its_successors_does_not(
    owner: Process, tmp_path: Path
) -> None:
    """The path is pinned: it can be told from a successor's, whatever became of the socket."""
    stale, replaced = tmp_path / "stale", tmp_path / "replaced"
    for path in (stale, replaced):
        thing = Listener(str(path))
        owner.adopt(thing)
        thing._listener._unlink.cancel()  # type: ignore[attr-defined]
        thing._listener._socket.close()  # type: ignore[attr-defined]
    replaced.unlink()
    with Listener(str(replaced)):
        assert owner.terminate().is_success
        assert not stale.exists()

        Client(str(replaced)).close()


def test_what_is_busy_stays_owned_though_its_owner_has_no_room_for_more(
    manager: ProcessManager, ipc: IpcManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed by hand while a thread is inside, it lost its place to what came meanwhile."""
    owner = manager.create_process("limited", limits=ResourceLimits(max_count=2))
    reader, _ = ipc.pipe(owner.pid)
    resource_id = ipc.table.find(owner.pid, reader)
    inside, may_leave, tries = threading.Event(), threading.Event(), []
    monkeypatch.setattr(pipe, "PATIENCE", 0.2)

    def stay() -> None:
        with reader._interruptible:
            inside.set()
            may_leave.wait(10)

    def close() -> None:
        with pytest.raises(BusyResourceError):
            ipc.close(owner.pid, reader)
        tries.append("busy")

    staying, _ = in_thread(stay)
    assert inside.wait(10)
    closing, _ = in_thread(close)
    while closing.is_alive() and owner.pid in ipc.table and ipc.table.count(owner.pid) == 2:
        closing.join(0.001)
    ipc.queue(owner.pid, 1)
    closing.join(10)

    assert tries == ["busy"]
    assert ipc.table.find(owner.pid, reader) == resource_id

    may_leave.set()
    staying.join(10)
    owner.terminate()

    assert reader.closed


def test_the_limit_that_is_exceeded_is_named(ipc: IpcManager, pid: int) -> None:
    """The tenth queue of a *user* failed without errno, and told of open files."""
    limits = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (1, limits[1]))
    try:
        with pytest.raises(
            OSError, match=r"than is left of the 1 bytes .*RLIMIT_MSGQUEUE"
        ) as caught:
            ipc.create_posix_queue(pid)
    finally:
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, limits)

    assert caught.value.errno == errno.EMFILE


def test_want_of_descriptors_is_told_from_want_of_room_for_queues(
    ipc: IpcManager, pid: int
) -> None:
    """EMFILE stands for both (mq_open(3))."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        with pytest.raises(OSError, match=r"^\[Errno 24\] POSIX queue '\S+': Too many") as caught:
            ipc.create_posix_queue(pid, max_messages=1, max_message_size=8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert caught.value.errno == errno.EMFILE
