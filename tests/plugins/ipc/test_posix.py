"""POSIX message queues and semaphores."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import posix_ipc  # type: ignore[import-not-found]  # a C extension without stubs
import pytest
from ipc_peers import await_sleep, peer
from threads import in_thread

from probate_ipc import (
    QueueClosedError,
    QueueEmptyError,
    QueueFullError,
    SemaphoreClosedError,
)

if TYPE_CHECKING:
    from probate import Process, ProcessManager
    from probate_ipc import IpcManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture
def owner(manager: ProcessManager) -> Process:
    """Who creates."""
    return manager.create_process("owner")


@pytest.fixture
def user(manager: ProcessManager) -> Process:
    """Who attaches."""
    return manager.create_process("user")


def queue_exists(name: str) -> bool:
    """Whether the kernel has a queue of that name; mqueue need not be mounted for that."""
    try:
        posix_ipc.MessageQueue(name).close()
    except posix_ipc.ExistentialError:
        return False
    return True


def semaphore_file(name: str) -> Path:
    """Where the C library keeps it (sem_overview(7))."""
    return Path(f"/dev/shm/sem.{name[1:]}")


def test_a_queue_carries_messages_by_priority_and_ends_with_its_owner(
    manager: ProcessManager, ipc: IpcManager, owner: Process
) -> None:
    """Highest first (mq_overview(7)); the name is gone afterwards, and the bytes are accounted."""
    queue = ipc.posix_queue(owner.pid, None, 4, 100)
    queue.send(b"low")
    queue.send(b"high", priority=9)

    assert queue.receive() == (b"high", 9)
    assert queue.receive() == (b"low", 0)
    assert queue_exists(queue.name)

    result = manager.terminate_process(owner.pid)

    assert (result.stats.by_type, result.stats.bytes_freed) == ({"ipc": 1}, 400)
    assert not queue_exists(queue.name)
    assert queue.closed


def test_a_users_end_never_unlinks(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process
) -> None:
    """An attaching process's exit unlinked a live object: owner is not user."""
    queue = ipc.posix_queue(owner.pid)
    semaphore = ipc.posix_semaphore(owner.pid)
    ipc.open_posix_queue(user.pid, queue.name).send(b"from the user")
    ipc.open_posix_semaphore(user.pid, semaphore.name)
    result = manager.terminate_process(user.pid)

    assert result.stats.by_type == {"ipc": 2}
    assert queue_exists(queue.name)
    assert semaphore_file(semaphore.name).exists()
    assert queue.receive(timeout=0) == (b"from the user", 0)


@pytest.mark.parametrize("way", ["send", "receive"])
@pytest.mark.parametrize("whose", ["owner", "user"])
def test_a_blocked_thread_is_woken_by_its_processes_end(
    manager: ProcessManager,
    ipc: IpcManager,
    owner: Process,
    user: Process,
    way: str,
    whose: str,
) -> None:
    """mq_close wakes nobody, so nobody is in mq_receive: both owner's and user's threads wake."""
    queue = ipc.posix_queue(owner.pid, None, 1, 8)
    handle = queue if whose == "owner" else ipc.open_posix_queue(user.pid, queue.name)
    if way == "send":
        queue.send(b"full")
        thread, outcome = in_thread(lambda: handle.send(b"x"))
    else:
        thread, outcome = in_thread(handle.receive)
    await_sleep(thread.native_id)
    manager.terminate_process(owner.pid if whose == "owner" else user.pid)
    thread.join(5)

    assert isinstance(outcome[0], QueueClosedError)


@pytest.mark.parametrize("way", ["send", "receive"])
def test_a_user_who_waits_learns_of_the_owners_end(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process, way: str
) -> None:
    """The kernel tells nobody of an unlink, so those who wait look: none of them for ever."""
    queue = ipc.posix_queue(owner.pid, None, 1, 8)
    mine = ipc.open_posix_queue(user.pid, queue.name)
    if way == "send":
        mine.send(b"full")
    call = mine.receive if way == "receive" else lambda: mine.send(b"x")
    thread, outcome = in_thread(call)
    await_sleep(thread.native_id)
    manager.terminate_process(owner.pid)
    thread.join(5)

    assert isinstance(outcome[0], QueueClosedError)
    with pytest.raises(QueueClosedError):
        mine.send(b"to nobody")


def test_a_user_in_another_os_process_learns_of_the_owners_end(
    manager: ProcessManager, ipc: IpcManager, owner: Process
) -> None:
    """With this package there too, its wait ends as well."""
    queue = ipc.posix_queue(owner.pid)
    script = (
        "import sys\nfrom probate_ipc import IpcManager, QueueClosedError\n"
        "queue = IpcManager().open_posix_queue(1, sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "try: queue.receive()\nexcept QueueClosedError: print('closed')"
    )
    with peer(script, queue.name) as child:
        manager.terminate_process(owner.pid)

        assert child.said() == "closed"


def test_what_is_left_can_be_received_after_the_owners_end(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process
) -> None:
    """The kernel keeps an unlinked queue for those who have it open."""
    queue = ipc.posix_queue(owner.pid)
    mine = ipc.open_posix_queue(user.pid, queue.name)
    queue.send(b"legacy")
    manager.terminate_process(owner.pid)

    assert mine.receive() == (b"legacy", 0)
    with pytest.raises(QueueClosedError):
        mine.receive()


def test_timeouts(ipc: IpcManager, owner: Process) -> None:
    """Full, empty and no permit, in time."""
    queue = ipc.posix_queue(owner.pid, None, 1, 8)
    semaphore = ipc.posix_semaphore(owner.pid, None, 0)

    with pytest.raises(QueueEmptyError):
        queue.receive(timeout=0.01)
    queue.send(b"1", timeout=0)
    with pytest.raises(QueueFullError):
        queue.send(b"2", timeout=0.01)
    assert not semaphore.acquire(timeout=0)
    assert not semaphore.acquire(timeout=0.01)


def test_quiesce_refuses_sends_and_lets_receivers_drain(ipc: IpcManager, owner: Process) -> None:
    """Senders are refused at once; what is there is still received."""
    queue = ipc.posix_queue(owner.pid)
    queue.send(b"there")

    assert ipc.quiesce(owner.pid) == []
    with pytest.raises(QueueClosedError):
        queue.send(b"late")
    assert queue.receive(timeout=0) == (b"there", 0)


def test_a_successors_name_is_left_alone(
    manager: ProcessManager, ipc: IpcManager, owner: Process
) -> None:
    """A server deleted its successor's path: device and inode are compared while it is open."""
    queue = ipc.posix_queue(owner.pid)
    semaphore = ipc.posix_semaphore(owner.pid)
    posix_ipc.unlink_message_queue(queue.name)
    posix_ipc.unlink_semaphore(semaphore.name)
    next_queue = posix_ipc.MessageQueue(queue.name, posix_ipc.O_CREX)
    next_semaphore = posix_ipc.Semaphore(semaphore.name, posix_ipc.O_CREX)
    try:
        result = manager.terminate_process(owner.pid)

        assert result.is_success
        assert queue_exists(queue.name)
        assert semaphore_file(semaphore.name).exists()
    finally:
        for each in (next_queue, next_semaphore):
            each.unlink()
            each.close()


def test_natively_closed_or_unlinked(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process
) -> None:
    """Closed behind our back and unlinked too: already gone. With its name left, that is freed."""
    gone, left = ipc.posix_queue(owner.pid), ipc.posix_queue(owner.pid)
    semaphore_gone, semaphore_left = (ipc.posix_semaphore(owner.pid) for _ in range(2))
    for each in (gone, semaphore_gone):
        each.native.unlink()  # type: ignore[union-attr]  # not among what we use
        each.native.close()
    left.close()
    semaphore_left.close()
    for user_handle in (
        ipc.open_posix_queue(user.pid, left.name),
        ipc.open_posix_semaphore(user.pid, semaphore_left.name),
    ):
        user_handle.native.close()

    assert manager.terminate_process(user.pid).stats.resources_freed == 0

    result = manager.terminate_process(owner.pid)

    assert result.is_success
    assert result.stats.resources_freed == 2
    assert not queue_exists(left.name)


def test_names_that_exist_and_names_that_do_not(
    ipc: IpcManager, owner: Process, user: Process
) -> None:
    """Python's own errors, which name the thing."""
    queue, semaphore = ipc.posix_queue(owner.pid), ipc.posix_semaphore(owner.pid)

    for create, name in ((ipc.posix_queue, queue.name), (ipc.posix_semaphore, semaphore.name)):
        with pytest.raises(FileExistsError, match=name):
            create(user.pid, name)
    for attach in (ipc.open_posix_queue, ipc.open_posix_semaphore):
        with pytest.raises(FileNotFoundError, match="/probate-none"):
            attach(user.pid, "/probate-none")
    assert not ipc.owns_any(user.pid)


def test_a_semaphore_excludes_and_ends_with_its_owner(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process
) -> None:
    """Owner and user share the permits; the name is gone with the owner, and users are told."""
    mine = ipc.posix_semaphore(owner.pid)
    theirs = ipc.open_posix_semaphore(user.pid, mine.name)
    with mine:
        assert theirs.value == 0
        assert not theirs.acquire(timeout=0)
    assert theirs.acquire(timeout=0)
    manager.terminate_process(owner.pid)

    assert not semaphore_file(mine.name).exists()
    for each in (mine, theirs):
        with pytest.raises(SemaphoreClosedError):
            each.acquire()
        with pytest.raises(SemaphoreClosedError):
            each.release()


@pytest.mark.parametrize("whose", ["owner", "user"])
def test_a_thread_that_waits_for_a_semaphore_is_woken(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process, whose: str
) -> None:
    """Nothing but a post wakes one in sem_wait, and that would let it in: waits are sliced."""
    mine = ipc.posix_semaphore(owner.pid, value=0)
    theirs = ipc.open_posix_semaphore(user.pid, mine.name)
    thread, outcome = in_thread((mine if whose == "owner" else theirs).acquire)
    await_sleep(thread.native_id, {"202"})
    manager.terminate_process(owner.pid)
    thread.join(5)

    assert isinstance(outcome[0], SemaphoreClosedError)


@pytest.mark.parametrize("sort", ["posix", "sysv"])
@pytest.mark.parametrize("undo", [False, True])
def test_a_dead_holders_permits_come_back_if_asked(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process, sort: str, undo: bool
) -> None:
    """As by SEM_UNDO (semop(2)): nobody waits for ever for a permit of the dead."""
    if sort == "posix":
        mine = ipc.posix_semaphore(owner.pid, value=3)
        theirs: Any = ipc.open_posix_semaphore(user.pid, mine.name, undo=undo)
        ours: Any = mine
    else:
        sysv = ipc.semaphore(owner.pid, 3)
        theirs = ipc.open_semaphore(user.pid, sysv.key, undo=undo)
        ours = sysv
    for _ in range(3):
        theirs.acquire()
    theirs.release()
    manager.terminate_process(user.pid)

    assert ours.value == (3 if undo else 1)


def test_receiving_races_the_end(manager: ProcessManager, ipc: IpcManager) -> None:
    """No descriptor is closed under a thread in it, whenever the owner ends."""
    for _ in range(60):
        owner = manager.create_process("racing")
        queue = ipc.posix_queue(owner.pid, None, 1, 8)
        start = threading.Barrier(3)

        def work(which: str, queue: object = queue, start: threading.Barrier = start) -> None:
            start.wait()
            while True:
                if which == "send":
                    queue.send(b"x")  # type: ignore[attr-defined]  # bound early, for the loop
                else:
                    queue.receive()  # type: ignore[attr-defined]  # bound early, for the loop

        threads = [in_thread(partial(work, which)) for which in ("send", "receive")]
        start.wait()
        result = manager.terminate_process(owner.pid)
        for thread, _ in threads:
            thread.join(5)

        assert [type(outcome[0]) for _, outcome in threads] == [QueueClosedError] * 2
        assert result.stats.resources_freed == 1
        assert not queue_exists(queue.name)
