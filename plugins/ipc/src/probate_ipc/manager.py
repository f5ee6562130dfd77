"""The IPC manager: makes pipes, queues and semaphores that belong to processes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from probate import BusyResourceError, NotOwnedError, OwnershipTable, pid_or_current
from probate_ipc import arguments
from probate_ipc import native as kernel
from probate_ipc.adoption import handle_on, native_of
from probate_ipc.connection import ConnectionHandle, new_pair
from probate_ipc.inprocess import DEFAULT_BYTES, InProcessQueue, QueueKind
from probate_ipc.pipe import PipeReader, PipeWriter, new_pipe
from probate_ipc.posixqueue import PosixQueue
from probate_ipc.semaphore import PosixSemaphore, SysvSemaphore
from probate_ipc.sysvqueue import SysvQueue
from probate_ipc.topic import DEFAULT_MESSAGES, Overflow, Subscription, Topic

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from probate import CleanupStats, Outcome, ResourceId, ResourceUsage
    from probate_ipc.handle import Handle

H = TypeVar("H", bound="Handle")
J = TypeVar("J", bound="Handle")

#: Permissions of named things unless told otherwise: this user's alone.
_PRIVATE: Final = 0o600


@final
class IpcManager:
    """Makes pipes, connections, in-process queues, kernel message queues and semaphores.

    Every method takes the owner's pid first; within `with manager.process(...)` it may be left
    out. `posix_queue`, `sysv_queue`, `semaphore` and `posix_semaphore` create, and their owner's
    end removes the thing from the system; the `open_` methods attach a *user*, whose end never
    does. Sizes are in bytes, timeouts in seconds.

    All raise ProcessTerminatedError, ProcessNotFoundError or ResourceLimitExceeded before
    anything is acquired, TypeError or ValueError for bad arguments, and OSError from the kernel:
    FileExistsError, FileNotFoundError and PermissionError among them.
    """

    def __init__(self) -> None:
        self._table: OwnershipTable[Handle] = OwnershipTable(
            "ipc",
            describe=lambda handle: handle.describe(),
            identity=lambda handle: handle.identity,
            alias=native_of,
        )
        #: Whether `pid` owns anything of this kind: the table's own word.
        self.owns_any: Callable[[int], bool] = self._table.__contains__

    # -- pipes ---------------------------------------------------------------

    @pid_or_current
    def pipe(self, pid: int, *, writer: int | None = None) -> tuple[PipeReader, PipeWriter]:
        """An OS pipe, as two unbuffered binary files; the write end may be another process's.

        A thread blocked in an end that is closed gets PipeClosedError. The ends are blocking, and
        not inherited by exec, so they can be handed to a child by `subprocess`.
        """
        return self._acquire_pair(pid, arguments.other_pid("writer", writer, pid), new_pipe)

    @pid_or_current
    def connection_pair(
        self, pid: int, *, peer: int | None = None, duplex: bool = True
    ) -> tuple[Connection, Connection]:
        """Two connected `multiprocessing.connection.Connection`; the second may be another's.

        Unless `duplex`, the first can only receive and the second only send. When an owner ends,
        whoever is blocked at either end gets EOFError, or OSError.
        """

        def make() -> tuple[ConnectionHandle, ConnectionHandle]:
            first, second = new_pair(duplex=duplex)
            return ConnectionHandle(first), ConnectionHandle(second)

        first, second = self._acquire_pair(pid, arguments.other_pid("peer", peer, pid), make)
        return first.identity, second.identity

    # -- in-process queues ---------------------------------------------------

    @pid_or_current
    def queue(
        self,
        pid: int,
        maxsize: int,
        *,
        kind: QueueKind = QueueKind.FIFO,
        max_bytes: int = DEFAULT_BYTES,
        drain: bool = False,
    ) -> InProcessQueue:
        """A queue between threads and tasks, of at most `maxsize` messages; see InProcessQueue.

        `max_bytes` is for bytes-like messages and counts against the owner's limits, used or not.
        With `drain` a termination waits, within its grace, until all is received.
        """
        queue = InProcessQueue(maxsize, kind=kind, max_bytes=max_bytes, drain=drain)
        return self._acquire(pid, lambda: queue, max_bytes)

    @pid_or_current
    def priority_queue(
        self, pid: int, maxsize: int, *, max_bytes: int = DEFAULT_BYTES, drain: bool = False
    ) -> InProcessQueue:
        """As `queue`, but the lowest priority number comes out first."""
        return self.queue(pid, maxsize, kind=QueueKind.PRIORITY, max_bytes=max_bytes, drain=drain)

    @pid_or_current
    def topic(self, pid: int, name: str = "") -> Topic:
        """A topic to publish to; the name is for people."""
        topic = Topic(name)
        return self._acquire(pid, lambda: topic)

    @pid_or_current
    def subscribe(
        self,
        pid: int,
        topic: Topic,
        maxsize: int = DEFAULT_MESSAGES,
        *,
        overflow: Overflow = Overflow.BLOCK,
        max_bytes: int = DEFAULT_BYTES,
    ) -> Subscription:
        """Receive what is published to `topic`, which may be another's, from now on.

        The subscription is `pid`'s and ends with it; the topic lives on. `overflow` says what
        happens when more than `maxsize` messages, or `max_bytes` bytes, wait. Raises
        QueueClosedError if the topic is closed.
        """
        if not isinstance(topic, Topic):
            raise TypeError(f"expected a Topic, got {topic!r}")
        subscription = Subscription(topic, maxsize, overflow=overflow, max_bytes=max_bytes)

        def make() -> Subscription:
            topic.admit(subscription)
            return subscription

        return self._acquire(pid, make, max_bytes)

    # -- kernel message queues -----------------------------------------------

    @pid_or_current
    def posix_queue(
        self,
        pid: int,
        name: str | None = None,
        max_messages: int = 10,
        max_message_size: int = 8192,
        *,
        mode: int = _PRIVATE,
    ) -> PosixQueue:
        """Create a POSIX message queue (mq_open(3)); without a name, under one of its own.

        The name goes with the owner, as long as it is still this queue's. ValueError for more
        than fs.mqueue.msg_max and msgsize_max allow.
        """
        name = arguments.new_name() if name is None else arguments.checked_name(name)
        arguments.check_positive("max_messages", max_messages)
        arguments.check_positive("max_message_size", max_message_size)
        arguments.check_mode(mode)

        def make() -> PosixQueue:
            native = kernel.create_posix_queue(name, mode, max_messages, max_message_size)
            with _undone_by(lambda: kernel.unlink_posix_queue(name), native.close):
                return PosixQueue(native, is_owner=True)

        return self._acquire(pid, make, max_messages * max_message_size)

    @pid_or_current
    def open_posix_queue(self, pid: int, name: str) -> PosixQueue:
        """Attach to a POSIX message queue as a user."""
        name = arguments.checked_name(name)
        return self._acquire(pid, lambda: PosixQueue(kernel.open_posix_queue(name), is_owner=False))

    @pid_or_current
    def sysv_queue(self, pid: int, key: int | None = None, *, mode: int = _PRIVATE) -> SysvQueue:
        """Create a SysV message queue (msgget(2)); without a key, under one that is free.

        It is removed with its owner: whoever is blocked in it, in any OS process, gets EIDRM.
        """
        key = None if key is None else arguments.checked_key(key)
        arguments.check_mode(mode)

        def make() -> SysvQueue:
            native = kernel.create_sysv_queue(key, mode)
            with _undone_by(native.remove):
                return SysvQueue(native, is_owner=True)

        return self._acquire(pid, make, kernel.sysv_queue_bytes())

    @pid_or_current
    def open_sysv_queue(self, pid: int, key: int) -> SysvQueue:
        """Attach to a SysV message queue as a user."""
        key = arguments.checked_key(key)
        return self._acquire(pid, lambda: SysvQueue(kernel.open_sysv_queue(key), is_owner=False))

    # -- semaphores ----------------------------------------------------------

    @pid_or_current
    def semaphore(
        self,
        pid: int,
        value: int = 1,
        *,
        key: int | None = None,
        undo: bool = False,
        mode: int = _PRIVATE,
    ) -> SysvSemaphore:
        """Create a SysV semaphore (semget(2)); without a key, under one that is free.

        It is removed with its owner: whoever waits for it, in any OS process, gets EIDRM. With
        `undo`, permits that were acquired through a handle come back with its holder's end.
        """
        arguments.check_value(value, kernel.SYSV_SEMAPHORE_MAX)
        key = None if key is None else arguments.checked_key(key)
        arguments.check_mode(mode)

        def make() -> SysvSemaphore:
            native = kernel.create_sysv_semaphore(key, mode, value)
            with _undone_by(native.remove):
                return SysvSemaphore(native, is_owner=True, undo=undo)

        return self._acquire(pid, make)

    @pid_or_current
    def open_semaphore(self, pid: int, key: int, *, undo: bool = False) -> SysvSemaphore:
        """Attach to a SysV semaphore as a user."""
        key = arguments.checked_key(key)

        def make() -> SysvSemaphore:
            return SysvSemaphore(kernel.open_sysv_semaphore(key), is_owner=False, undo=undo)

        return self._acquire(pid, make)

    @pid_or_current
    def posix_semaphore(
        self,
        pid: int,
        name: str | None = None,
        value: int = 1,
        *,
        undo: bool = False,
        mode: int = _PRIVATE,
    ) -> PosixSemaphore:
        """Create a POSIX semaphore (sem_open(3)); without a name, under one of its own.

        The name goes with the owner, as long as it is still this semaphore's.
        """
        name = arguments.new_name() if name is None else arguments.checked_name(name)
        arguments.check_value(value, kernel.POSIX_SEMAPHORE_MAX)
        arguments.check_mode(mode)

        def make() -> PosixSemaphore:
            native = kernel.create_posix_semaphore(name, mode, value)
            with _undone_by(lambda: kernel.unlink_posix_semaphore(name), native.close):
                return PosixSemaphore(native, is_owner=True, undo=undo)

        return self._acquire(pid, make)

    @pid_or_current
    def open_posix_semaphore(self, pid: int, name: str, *, undo: bool = False) -> PosixSemaphore:
        """Attach to a POSIX semaphore as a user."""
        name = arguments.checked_name(name)

        def make() -> PosixSemaphore:
            return PosixSemaphore(kernel.open_posix_semaphore(name), is_owner=False, undo=undo)

        return self._acquire(pid, make)

    # -- giving back ---------------------------------------------------------

    @pid_or_current
    def close(self, pid: int, thing: object) -> None:
        """Give back anything that this owner has, as its end would. Idempotent.

        Of a connection only this end is closed, so that a child that has a copy keeps it. Raises
        NotOwnedError if it is another's, BusyResourceError while a thread does not leave it, and
        RefusedResourceError if it is closed, but may not be removed.
        """
        try:
            resource_id = self._table.find(pid, thing)
        except NotOwnedError as error:
            if error.owner is None and _is_closed(thing):
                return
            raise
        handle = self._table.release(pid, resource_id)
        if handle is None:
            return
        if isinstance(handle, ConnectionHandle):
            handle.identity.close()
            return
        try:
            handle.give_back()
        except BusyResourceError:
            # Its owner has it still, unless the owner is ending: nobody else could close it.
            self._table.add(pid, handle, handle.reserved)
            raise

    # -- settling, for the resource ------------------------------------------

    @pid_or_current
    def adopt(self, pid: int, resource: object, *, as_owner: bool = False) -> ResourceId | None:
        """Own a connection, listener, or a queue or semaphore of posix_ipc or sysv_ipc.

        What has a name or a key is adopted as by a user, and never removed, unless `as_owner` says
        that it is the process's to remove. Returns None for anything else, ValueError if it is
        closed.
        """
        handle = handle_on(resource, is_owner=as_owner)
        return None if handle is None else self._table.add(pid, handle, handle.reserved)

    def quiesce(self, pid: int) -> list[concurrent.futures.Future[Any]]:
        """Refuse sends, and wake those who wait to send."""
        handles = (handle for _, handle in self._table.owned(pid))
        futures = [handle.stop_sending() for handle in handles]
        return [future for future in futures if future is not None]

    def cleanup(self, pid: int) -> CleanupStats:
        """Close, unlink and remove all that `pid` owns, newest first."""
        # All sleepers are told first, so that they leave at the same time.
        for _, handle in self._table.owned(pid):
            handle.wake_waiters()
        return self._table.cleanup(pid, _dispose)

    def usage(self, pid: int) -> ResourceUsage:
        """What `pid` owns."""
        return self._table.usage(pid)

    # -- inside --------------------------------------------------------------

    def _acquire(self, pid: int, make: Callable[[], H], nbytes: int = 0) -> H:
        return self._table.acquire(pid, make, _dispose, nbytes)  # type: ignore[return-value]  # what make has made

    def _acquire_pair(self, pid: int, other: int, make: Callable[[], tuple[H, J]]) -> tuple[H, J]:
        """Make two things with an owner each, once both may own them, or none at all."""
        made: list[tuple[H, J]] = []

        def make_first() -> Handle:
            made.append(make())
            return made[0][0]

        def make_second() -> Handle:
            self._table.acquire(pid, make_first, _dispose)
            return made[0][1]

        try:
            self._table.acquire(other, make_second, _dispose)
        except BaseException:
            for first, second in made:
                with contextlib.suppress(NotOwnedError):
                    self._table.release(pid, self._table.find(pid, first.identity))
                first.give_back()
                second.give_back()
            raise
        return made[0]


def _dispose(handle: Handle) -> Outcome:
    return handle.give_back()


@contextlib.contextmanager
def _undone_by(*undo: Callable[[], None]) -> Iterator[None]:
    """Have what was created just now removed again if it cannot be taken hold of."""
    try:
        yield
    except BaseException:
        for each in undo:
            each()
        raise


def _is_closed(thing: object) -> bool:
    """Whether it is of this kind and closed. Raises TypeError if it is of another."""
    try:
        if handle_on(thing, is_owner=False) is None:
            raise TypeError(f"expected something of kind ipc, got {thing!r}")
    except ValueError:
        return True
    return False
