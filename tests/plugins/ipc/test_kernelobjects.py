"""Queues and semaphores of the kernel, of both sorts; the kernel itself is the witness."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import posix_ipc
import pytest
import sysv_ipc
from ipc_kernel import is_there
from ipc_peers import await_sleep, peer
from threads import in_thread

from probate import BusyResourceError
from probate_ipc import (
    QueueClosedError,
    QueueEmptyError,
    QueueFullError,
    SemaphoreClosedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipc_kernel import MadeHere, Sort

    from probate import Process, ProcessManager
    from probate_ipc import IpcManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

CLOSED = (QueueClosedError, SemaphoreClosedError)


# -- both sorts ------------------------------------------------------------------


def test_objects_end_with_their_owner(
    manager: ProcessManager, sort: Sort, owner: Process, user: Process
) -> None:
    """The kernel has them no more; owner and user are told by an error; bytes are accounted."""
    queue, semaphore = sort.create_queue(owner.pid), sort.create_semaphore(owner.pid)
    theirs = sort.open_semaphore(user.pid, semaphore)

    assert is_there(queue.native)
    assert is_there(semaphore.native)

    result = manager.terminate_process(owner.pid)

    assert result.stats.by_type == {"ipc": 2}
    assert result.stats.bytes_freed >= 2 * 8192
    assert not is_there(queue.native)
    assert not is_there(semaphore.native)
    assert queue.closed
    for each in (semaphore, theirs):
        for call in (each.acquire, each.release):
            with pytest.raises(SemaphoreClosedError):
                call()


def test_a_users_end_never_removes(
    manager: ProcessManager, sort: Sort, owner: Process, user: Process
) -> None:
    """IPC removed under a live PostgreSQL because of its uid: ownership is per object, and all
    of these have the same uid.
    """
    queue, semaphore = sort.create_queue(owner.pid), sort.create_semaphore(owner.pid)
    theirs = sort.open_queue(user.pid, queue)
    theirs.send(b"from the user")
    sort.open_semaphore(user.pid, semaphore)
    result = manager.terminate_process(user.pid)

    assert result.stats.by_type == {"ipc": 2}
    assert is_there(queue.native)
    assert is_there(semaphore.native)
    assert queue.receive(timeout=0)[0] == b"from the user"
    assert semaphore.acquire(timeout=0)
    with pytest.raises(QueueClosedError):
        theirs.send(b"after the end")


@pytest.mark.parametrize("whose", ["owner", "user"])
@pytest.mark.parametrize("call", ["send", "receive", "acquire"])
@pytest.mark.parametrize("dying", ["owner", "user"])
def test_threads_that_wait_are_woken(
    manager: ProcessManager,
    sort: Sort,
    owner: Process,
    user: Process,
    whose: str,
    call: str,
    dying: str,
) -> None:
    """By the end of their own process and by the owner's, and by no other's."""
    queue, semaphore = sort.create_queue(owner.pid), sort.create_semaphore(owner.pid, value=0)
    if call == "send":
        sort.fill(queue)
    if whose == "user":
        queue = sort.open_queue(user.pid, queue)
        semaphore = sort.open_semaphore(user.pid, semaphore)
    calls: dict[str, Callable[[], object]] = {
        "send": lambda: queue.send(b"x"),
        "receive": queue.receive,
        "acquire": semaphore.acquire,
    }
    sleeps = {"calls": sort.sem_calls} if call == "acquire" else {}
    thread, outcome = in_thread(calls[call])
    await_sleep(thread.native_id, **sleeps)
    manager.terminate_process(owner.pid if dying == "owner" else user.pid)
    if (whose, dying) == ("owner", "user"):
        await_sleep(thread.native_id, **sleeps)

        assert outcome == []

        manager.terminate_process(owner.pid)
    thread.join(5)

    assert isinstance(outcome[0], CLOSED)


def test_timeouts(sort: Sort, pid: int) -> None:
    """Full, empty and no permit, in time."""
    queue, semaphore = sort.create_queue(pid), sort.create_semaphore(pid, value=0)

    with pytest.raises(QueueEmptyError):
        queue.receive(timeout=0.01)
    sort.fill(queue)
    for timeout in (0, 0.01):
        with pytest.raises(QueueFullError):
            queue.send(bytes(8192), timeout=timeout)

        assert not semaphore.acquire(timeout=timeout)


def test_quiesce_refuses_sends_and_lets_receivers_drain(
    ipc: IpcManager, sort: Sort, pid: int
) -> None:
    """Senders are refused and woken at once; what is there is still received."""
    queue = sort.create_queue(pid)
    sort.fill(queue)
    thread, outcome = in_thread(lambda: queue.send(b"waiting"))
    await_sleep(thread.native_id)

    assert ipc.quiesce(pid) == []

    thread.join(5)

    assert isinstance(outcome[0], QueueClosedError)
    with pytest.raises(QueueClosedError):
        queue.send(b"late")
    assert queue.receive(timeout=0)[0] == bytes(8192)


def test_names_and_keys_that_exist_and_that_do_not(
    ipc: IpcManager, sort: Sort, owner: Process, user: Process
) -> None:
    """Python's own errors, which name the thing."""
    queue, semaphore = sort.create_queue(owner.pid), sort.create_semaphore(owner.pid)
    if sort.name == "posix":
        shown = [queue.name, semaphore.name]
        creations: list[Callable[[], object]] = [
            lambda: ipc.create_posix_queue(user.pid, queue.name),
            lambda: ipc.create_posix_semaphore(user.pid, semaphore.name),
        ]
    else:
        shown = [f"{queue.key:#x}", f"{semaphore.key:#x}"]
        creations = [
            lambda: ipc.create_sysv_queue(user.pid, queue.key),
            lambda: ipc.create_sysv_semaphore(user.pid, semaphore.key),
        ]

    for create, text in zip(creations, shown, strict=True):
        with pytest.raises(FileExistsError, match=text):
            create()

    ipc.close(owner.pid, queue)
    ipc.close(owner.pid, semaphore)

    with pytest.raises(FileNotFoundError, match=shown[0]):
        sort.open_queue(user.pid, queue)
    with pytest.raises(FileNotFoundError, match=shown[1]):
        sort.open_semaphore(user.pid, semaphore)
    assert user.pid not in ipc.table


def test_a_semaphore_excludes(sort: Sort, owner: Process, user: Process) -> None:
    """Owner and user share the permits; leaving the block gives one."""
    mine = sort.create_semaphore(owner.pid)
    theirs = sort.open_semaphore(user.pid, mine)
    with mine:
        assert theirs.value == 0
        assert not theirs.acquire(timeout=0)
    assert theirs.acquire(timeout=0)


@pytest.mark.parametrize("undo", [False, True])
def test_a_dead_holders_permits_come_back_if_asked(
    manager: ProcessManager, sort: Sort, owner: Process, user: Process, undo: bool
) -> None:
    """As by SEM_UNDO (semop(2)): nobody waits for ever for a permit of the dead."""
    mine = sort.create_semaphore(owner.pid, value=3)
    theirs = sort.open_semaphore(user.pid, mine, undo=undo)
    for _ in range(3):
        theirs.acquire()
    theirs.release()
    manager.terminate_process(user.pid)

    assert mine.value == (3 if undo else 1)


def test_what_a_thread_does_not_leave_is_busy_and_stays_as_it_is(
    ipc: IpcManager, sort: Sort, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owned under the same id, and neither removed nor closed, until the thread has left."""
    monkeypatch.setattr("probate_ipc.kernelobject.PATIENCE", 0.01)
    for thing in (sort.create_queue(pid), sort.create_semaphore(pid)):
        resource_id = ipc.table.find(pid, thing)
        with thing._waits, pytest.raises(BusyResourceError):
            ipc.close(pid, thing)

        assert ipc.table.find(pid, thing) == resource_id
        assert is_there(thing.native)
        assert not thing.closed

        ipc.close(pid, thing)

        assert not is_there(thing.native)
    assert pid not in ipc.table


def test_sending_and_receiving_race_the_end(manager: ProcessManager, sort: Sort) -> None:
    """Nothing is closed under a thread in it, whenever the owner ends."""
    for _ in range(60):
        owner = manager.create_process("racing")
        queue = sort.create_queue(owner.pid)
        start = threading.Barrier(3)

        def work(which: str, queue: Any = queue, start: threading.Barrier = start) -> None:
            start.wait()
            while True:
                queue.send(b"x") if which == "send" else queue.receive()

        threads = [in_thread(partial(work, which)) for which in ("send", "receive")]
        start.wait()
        result = manager.terminate_process(owner.pid)
        for thread, _ in threads:
            thread.join(5)

        assert [type(outcome[0]) for _, outcome in threads] == [QueueClosedError] * 2
        assert result.stats.resources_freed == 1
        assert not is_there(queue.native)


# -- POSIX -----------------------------------------------------------------------


def test_the_highest_priority_comes_first(ipc: IpcManager, pid: int) -> None:
    """As mq_overview(7) says; size and number are as asked."""
    queue = ipc.create_posix_queue(pid, max_messages=4, max_message_size=100)
    queue.send(b"low")
    queue.send(b"high", priority=9)

    assert (queue.max_messages, queue.max_message_size, queue.current_messages) == (4, 100, 2)
    assert queue.receive() == (b"high", 9)
    assert queue.receive() == (b"low", 0)


def test_a_user_in_another_os_process_learns_of_the_owners_end(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """With this package there too, its wait ends as well."""
    queue = ipc.create_posix_queue(pid)
    script = (
        "import sys\nfrom probate_ipc import IpcManager, QueueClosedError\n"
        "queue = IpcManager().open_posix_queue(1, sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "try: queue.receive()\nexcept QueueClosedError: print('closed')"
    )
    with peer(script, queue.name) as child:
        manager.terminate_process(pid)

        assert child.said() == "closed"


def test_what_is_left_can_be_received_after_the_owners_end(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process
) -> None:
    """The kernel keeps an unlinked queue for those who have it open; nothing more is sent."""
    queue = ipc.create_posix_queue(owner.pid)
    mine = ipc.open_posix_queue(user.pid, queue.name)
    queue.send(b"legacy")
    manager.terminate_process(owner.pid)

    with pytest.raises(QueueClosedError, match="unlinked"):
        mine.send(b"to nobody")
    assert mine.receive() == (b"legacy", 0)
    with pytest.raises(QueueClosedError, match="unlinked"):
        mine.receive()


def test_a_successors_name_is_left_alone(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """A server deleted its successor's path: device and inode are compared while it is open."""
    queue, semaphore = ipc.create_posix_queue(pid), ipc.create_posix_semaphore(pid)
    queue.native.unlink()
    semaphore.native.unlink()
    successors = (
        posix_ipc.MessageQueue(queue.name, posix_ipc.O_CREX),
        posix_ipc.Semaphore(semaphore.name, posix_ipc.O_CREX),
    )
    try:
        assert manager.terminate_process(pid).is_success
        assert all(is_there(each) for each in successors)
    finally:
        for each in successors:
            each.unlink()
            each.close()


def test_natively_closed_or_unlinked(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process
) -> None:
    """Closed behind our back and unlinked too: already gone. With its name left, that is freed."""
    gone, left = (ipc.create_posix_queue(owner.pid) for _ in range(2))
    semaphore_gone, semaphore_left = (ipc.create_posix_semaphore(owner.pid) for _ in range(2))
    for each in (gone, semaphore_gone):
        each.native.unlink()
        each.native.close()
    left.close()
    semaphore_left.close()
    ipc.open_posix_queue(user.pid, left.name).native.close()
    ipc.open_posix_semaphore(user.pid, semaphore_left.name).native.close()

    assert manager.terminate_process(user.pid).stats.resources_freed == 0

    result = manager.terminate_process(owner.pid)

    assert result.is_success
    assert result.stats.resources_freed == 2
    assert not is_there(left.native)


# -- System V --------------------------------------------------------------------


def test_messages_come_by_type(ipc: IpcManager, pid: int) -> None:
    """The type that is asked for, or any (msgrcv(2))."""
    queue = ipc.create_sysv_queue(pid)
    queue.send(b"one", type=1)
    queue.send(b"two", type=2)

    assert queue.current_messages == 2
    assert queue.receive(type=2) == (b"two", 2)
    assert queue.receive() == (b"one", 1)


def test_semaphores_are_not_leaked(
    manager: ProcessManager, ipc: IpcManager, made_here: MadeHere
) -> None:
    """Leaked SysV semaphores, ENOSPC for everybody: a thousand owners leave none."""
    for _ in range(1000):
        process = manager.create_process("semaphore")
        ipc.create_sysv_semaphore(process.pid)
        manager.terminate_process(process.pid)

    assert made_here.remaining() == set()


def test_an_object_is_known_by_id_and_time_of_creation(ipc: IpcManager, pid: int) -> None:
    """The kernel keeps no creator to ask, so what a journal needs is remembered."""
    start = int(time.time())
    for each in (ipc.create_sysv_queue(pid), ipc.create_sysv_semaphore(pid)):
        identification = each.identification

        assert (identification.id, identification.key) == (each.id, each.key)
        assert identification.created is not None
        assert start - 1 <= identification.created <= time.time()


_CHILDREN = {
    "receive": (
        "import sys, sysv_ipc\nq = sysv_ipc.MessageQueue(int(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "try: q.receive()\nexcept sysv_ipc.ExistentialError: print('removed')"
    ),
    "acquire": (
        "import sys, sysv_ipc\ns = sysv_ipc.Semaphore(int(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "try: s.acquire()\nexcept sysv_ipc.ExistentialError: print('removed')"
    ),
}


@pytest.mark.parametrize("call", sorted(_CHILDREN))
def test_another_os_process_that_waits_is_woken(
    manager: ProcessManager, ipc: IpcManager, pid: int, call: str
) -> None:
    """Blocked in msgrcv or semop, by sysv_ipc alone, it gets EIDRM when the owner ends."""
    queue, semaphore = ipc.create_sysv_queue(pid), ipc.create_sysv_semaphore(pid, value=0)
    with peer(_CHILDREN[call], queue.key if call == "receive" else semaphore.key) as child:
        manager.terminate_process(pid)

        assert child.said() == "removed"


def test_the_end_of_a_user_leaves_another_os_process_waiting_undisturbed(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process
) -> None:
    """An attacher's end removes nothing: the other still gets its message."""
    queue = ipc.create_sysv_queue(owner.pid)
    ipc.open_sysv_queue(user.pid, queue.key)
    script = _CHILDREN["receive"].replace("q.receive()", "print(q.receive())")
    with peer(script, queue.key) as child:
        manager.terminate_process(user.pid)
        queue.send(b"hello")

        assert child.said() == "(b'hello', 1)"


def test_removed_behind_our_back(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process
) -> None:
    """A clear error to who uses it, already gone to the account of owner and user."""
    queue, semaphore = ipc.create_sysv_queue(owner.pid), ipc.create_sysv_semaphore(owner.pid)
    ipc.open_sysv_queue(user.pid, queue.key)
    ipc.open_sysv_semaphore(user.pid, semaphore.key)
    queue.native.remove()
    semaphore.native.remove()

    for call in (lambda: queue.send(b"x"), queue.receive, lambda: queue.current_messages):
        with pytest.raises(QueueClosedError, match="removed"):
            call()
    for call in (semaphore.acquire, semaphore.release, lambda: semaphore.value):
        with pytest.raises(SemaphoreClosedError):
            call()
    for process in (user, owner):
        result = manager.terminate_process(process.pid)

        assert result.is_success
        assert result.stats.resources_freed == 0


def test_what_may_not_be_removed_is_refused_and_said(
    manager: ProcessManager, ipc: IpcManager, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPERM is an error in the account, with the thing's name, and not a thing freed."""
    semaphore = ipc.create_sysv_semaphore(pid)
    native = semaphore.native

    class Forbidden:
        def __getattr__(self, name: str) -> object:
            return getattr(native, name)

        def remove(self) -> None:
            raise sysv_ipc.PermissionsError("Permission denied")

    # Root may remove all, so the kernel cannot be made to refuse here.
    monkeypatch.setattr(semaphore, "native", Forbidden())
    result = manager.terminate_process(pid)
    native.remove()

    assert result.stats.resources_freed == 0
    assert [error.outcome for error in result.errors] == ["refused"]
    assert f"id {native.id}" in str(result.errors[0])
