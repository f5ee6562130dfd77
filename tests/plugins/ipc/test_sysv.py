"""System V message queues and semaphores; /proc/sysvipc is the witness."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import sysv_ipc  # type: ignore[import-not-found]  # a C extension without stubs
from ipc_peers import await_sleep, kernel_objects, peer
from threads import in_thread

from probate_ipc import (
    QueueClosedError,
    QueueEmptyError,
    QueueFullError,
    SemaphoreClosedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

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


def test_a_queue_carries_messages_by_type_and_ends_with_its_owner(
    manager: ProcessManager, ipc: IpcManager, owner: Process
) -> None:
    """The kernel has it, and has it no more."""
    queue = ipc.sysv_queue(owner.pid)
    queue.send(b"one", type=1)
    queue.send(b"two", type=2)

    assert f"msg {queue.id}" in kernel_objects()
    assert queue.current_messages == 2
    assert queue.receive(type=2) == (b"two", 2)
    assert queue.receive() == (b"one", 1)

    result = manager.terminate_process(owner.pid)

    assert result.stats.by_type == {"ipc": 1}
    assert result.stats.bytes_freed > 0
    assert f"msg {queue.id}" not in kernel_objects()


def test_semaphores_are_not_leaked(manager: ProcessManager, ipc: IpcManager) -> None:
    """Leaked SysV semaphores, ENOSPC for everybody: a thousand owners leave none."""
    before = kernel_objects()
    for _ in range(1000):
        process = manager.create_process("semaphore")
        ipc.semaphore(process.pid)
        manager.terminate_process(process.pid)

    assert kernel_objects() == before


def test_an_object_is_known_by_id_and_time_of_creation(ipc: IpcManager, owner: Process) -> None:
    """The kernel keeps no creator to ask, so what a journal needs is remembered."""
    start = int(time.time())
    for each in (ipc.sysv_queue(owner.pid), ipc.semaphore(owner.pid)):
        identification = each.identification

        assert (identification.id, identification.key) == (each.id, each.key)
        assert identification.created is not None
        assert start - 1 <= identification.created <= time.time()


def test_a_users_end_never_removes(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process
) -> None:
    """IPC removed under a live PostgreSQL because of its uid: ownership is per object, and all
    of these have the same uid.
    """
    queue, semaphore = ipc.sysv_queue(owner.pid), ipc.semaphore(owner.pid)
    theirs = ipc.open_sysv_queue(user.pid, queue.key)
    theirs.send(b"from the user")
    ipc.open_semaphore(user.pid, semaphore.key)
    result = manager.terminate_process(user.pid)

    assert result.stats.by_type == {"ipc": 2}
    assert {f"msg {queue.id}", f"sem {semaphore.id}"} <= kernel_objects()
    assert queue.receive(timeout=0) == (b"from the user", 1)
    assert semaphore.acquire(timeout=0)
    with pytest.raises(QueueClosedError):
        theirs.send(b"after the end")


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
    manager: ProcessManager, ipc: IpcManager, owner: Process, call: str
) -> None:
    """Blocked in msgrcv or semop, by sysv_ipc alone, it gets EIDRM when the owner ends."""
    key = ipc.sysv_queue(owner.pid).key if call == "receive" else ipc.semaphore(owner.pid, 0).key
    with peer(_CHILDREN[call], key) as child:
        manager.terminate_process(owner.pid)

        assert child.said() == "removed"


def test_the_end_of_a_user_leaves_another_os_process_waiting_undisturbed(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process
) -> None:
    """An attacher's end removes nothing: the other still gets its message."""
    queue = ipc.sysv_queue(owner.pid)
    ipc.open_sysv_queue(user.pid, queue.key)
    script = _CHILDREN["receive"].replace("q.receive()", "print(q.receive())")
    with peer(script, queue.key) as child:
        manager.terminate_process(user.pid)
        queue.send(b"hello")

        assert child.said() == "(b'hello', 1)"


@pytest.mark.parametrize("whose", ["owner", "user"])
@pytest.mark.parametrize("call", ["send", "receive", "acquire"])
@pytest.mark.parametrize("dying", ["owner", "user"])
def test_threads_that_wait_are_woken(
    manager: ProcessManager,
    ipc: IpcManager,
    owner: Process,
    user: Process,
    whose: str,
    call: str,
    dying: str,
) -> None:
    """By the end of their own process and by the owner's, and by no other's."""
    queue, semaphore = ipc.sysv_queue(owner.pid), ipc.semaphore(owner.pid, 0)
    theirs = ipc.open_sysv_queue(user.pid, queue.key)
    their_semaphore = ipc.open_semaphore(user.pid, semaphore.key)
    if call == "send":
        # Two fill it: the kernel's bound is in bytes (msgsnd(2)).
        for _ in range(2):
            queue.send(bytes(8192), timeout=0)
    waiting_queue = queue if whose == "owner" else theirs
    waiting_semaphore = semaphore if whose == "owner" else their_semaphore
    calls: dict[str, Callable[[], object]] = {
        "send": lambda: waiting_queue.send(b"x"),
        "receive": waiting_queue.receive,
        "acquire": waiting_semaphore.acquire,
    }
    thread, outcome = in_thread(calls[call])
    await_sleep(thread.native_id)
    manager.terminate_process(owner.pid if dying == "owner" else user.pid)
    if (whose, dying) == ("owner", "user"):
        await_sleep(thread.native_id)

        assert outcome == []

        manager.terminate_process(owner.pid)
    thread.join(5)

    assert isinstance(outcome[0], (QueueClosedError, SemaphoreClosedError))


def test_timeouts(ipc: IpcManager, owner: Process) -> None:
    """Full, empty and no permit, in time."""
    queue, semaphore = ipc.sysv_queue(owner.pid), ipc.semaphore(owner.pid, 0)

    with pytest.raises(QueueEmptyError):
        queue.receive(timeout=0.01)
    for _ in range(2):
        queue.send(bytes(8192), timeout=0)
    with pytest.raises(QueueFullError):
        queue.send(bytes(8192), timeout=0.01)
    assert not semaphore.acquire(timeout=0)
    assert not semaphore.acquire(timeout=0.01)


def test_removed_behind_our_back(
    manager: ProcessManager, ipc: IpcManager, owner: Process, user: Process
) -> None:
    """A clear error to who uses it, already gone to the account of owner and user."""
    queue, semaphore = ipc.sysv_queue(owner.pid), ipc.semaphore(owner.pid)
    ipc.open_sysv_queue(user.pid, queue.key)
    ipc.open_semaphore(user.pid, semaphore.key)
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


def test_keys_that_exist_and_keys_that_do_not(
    ipc: IpcManager, owner: Process, user: Process
) -> None:
    """Python's own errors, which name the key."""
    queue, semaphore = ipc.sysv_queue(owner.pid), ipc.semaphore(owner.pid)

    with pytest.raises(FileExistsError, match=f"{queue.key:#x}"):
        ipc.sysv_queue(user.pid, queue.key)
    with pytest.raises(FileExistsError, match=f"{semaphore.key:#x}"):
        ipc.semaphore(user.pid, key=semaphore.key)

    ipc.close(owner.pid, queue)
    ipc.close(owner.pid, semaphore)

    with pytest.raises(FileNotFoundError):
        ipc.open_sysv_queue(user.pid, queue.key)
    with pytest.raises(FileNotFoundError):
        ipc.open_semaphore(user.pid, semaphore.key)


def test_what_may_not_be_removed_is_refused_and_said(
    manager: ProcessManager, ipc: IpcManager, owner: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPERM is an error in the account, with the thing's name, and not a thing freed."""
    semaphore = ipc.semaphore(owner.pid)
    native = semaphore.native

    class Forbidden:
        def __getattr__(self, name: str) -> object:
            return getattr(native, name)

        def remove(self) -> None:
            raise sysv_ipc.PermissionsError("Permission denied")

    # Root may remove all, so the kernel cannot be made to refuse here.
    monkeypatch.setattr(semaphore, "native", Forbidden())
    result = manager.terminate_process(owner.pid)
    native.remove()

    assert result.stats.resources_freed == 0
    assert [error.outcome for error in result.errors] == ["refused"]
    assert f"id {native.id}" in str(result.errors[0])
