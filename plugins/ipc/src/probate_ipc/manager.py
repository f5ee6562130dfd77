"""The IPC manager: makes pipes, queues and semaphores that belong to processes."""

from __future__ import annotations

import contextlib
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import posix_ipc
import sysv_ipc

from probate import (
    NotOwnedError,
    Outcome,
    OwnershipTable,
    pid_or_current,
    runs_inline,
)
from probate.journal import with_sysv_key
from probate.system import checked_int, is_transport, let_all_go, number_of, parts_of
from probate_ipc import arguments, limits
from probate_ipc.adoption import handle_on, native_of
from probate_ipc.connection import ConnectionHandle, new_pair
from probate_ipc.inprocess import DEFAULT_BYTES, InProcessQueue, QueueKind
from probate_ipc.messagequeue import PosixQueue, SysvQueue
from probate_ipc.named import named_by_key, named_of, named_queue, named_semaphore
from probate_ipc.pipe import PipeReader, PipeWriter, new_pipe
from probate_ipc.semaphore import PosixSemaphore, SysvSemaphore
from probate_ipc.transports import TransportHandle, give_back_above, note_transports

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from probate import CleanupStats, ResourceId
    from probate_ipc.handle import Handle
    from probate_ipc.pipetransport import PipeTransport

H = TypeVar("H", bound="Handle")
J = TypeVar("J", bound="Handle")

#: Permissions of named things unless told otherwise: this user's alone.
_PRIVATE: Final = 0o600


@final
class IpcManager:
    """Makes pipes, connections, in-process queues, kernel message queues and semaphores.

    Every method takes the owner's pid first; within `with manager.process(...)` it may be left
    out. What `create_` methods make is removed from the system with its owner; `open_` methods
    attach a *user*, whose end never removes anything. Sizes are in bytes, timeouts in seconds.

    All raise ProcessTerminatedError, ProcessNotFoundError or ResourceLimitExceeded before
    anything is acquired, TypeError or ValueError for bad arguments, and OSError from the kernel:
    FileExistsError, FileNotFoundError and PermissionError among them. Where a limit is reached, it
    says which, and how to raise it.
    """

    def __init__(self) -> None:
        self.table: OwnershipTable[Handle] = OwnershipTable(
            "ipc",
            _give_back,
            describe=lambda handle: handle.describe(),
            identity=native_of,
            alias=self._known_native,
            descriptors=attrgetter("descriptors"),
            repeatable=True,
        )

    # -- pipes ---------------------------------------------------------------

    @pid_or_current
    def pipe(self, pid: int, *, writer: int | None = None) -> tuple[PipeReader, PipeWriter]:
        """Make an OS pipe: two unbuffered binary files; the write end may be another process's.

        A thread blocked in an end that is closed gets PipeClosedError. The ends are blocking, and
        not inherited by exec, so they can be handed to a child by `subprocess`.
        """
        other = pid if writer is None else checked_int("writer", writer)
        return self._acquire_pair(pid, other, new_pipe)

    @pid_or_current
    def connection_pair(
        self, pid: int, *, peer: int | None = None, duplex: bool = True
    ) -> tuple[Connection, Connection]:
        """Connect two `multiprocessing.connection.Connection`; the second may be another's.

        Unless `duplex`, the first can only receive and the second only send. When an owner ends,
        whoever is blocked at either end gets EOFError, or OSError.
        """

        def make() -> tuple[ConnectionHandle, ConnectionHandle]:
            first, second = new_pair(duplex=duplex)
            return ConnectionHandle(first), ConnectionHandle(second)

        other = pid if peer is None else checked_int("peer", peer)
        first, second = self._acquire_pair(pid, other, make)
        return first.connection, second.connection

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
        """Make a queue between threads and tasks, of at most `maxsize` messages.

        `max_bytes` is for bytes-like messages and counts against the owner's limits, used or not.
        With `drain` a termination waits, within its grace, until all is received.
        """
        queue = InProcessQueue(maxsize, kind=kind, max_bytes=max_bytes, drain=drain)
        return self.table.acquire(pid, lambda: queue, nbytes=queue.reserved)

    # -- queues of the kernel ------------------------------------------------

    @pid_or_current
    def create_posix_queue(
        self,
        pid: int,
        name: str | None = None,
        *,
        max_messages: int = 10,
        max_message_size: int = 8192,
        mode: int = _PRIVATE,
    ) -> PosixQueue:
        """Create a POSIX message queue (mq_open(3)); without a name, under one of its own.

        The name goes with the owner, as long as it is still this queue's. QueueTooLargeError for
        more than fs.mqueue.msg_max and msgsize_max allow.
        """
        called, mode = arguments.name_or_new(name), arguments.checked_mode(mode)
        count = checked_int("max_messages", max_messages, least=1)
        size = checked_int("max_message_size", max_message_size, least=1)
        return self.table.acquire(
            pid,
            lambda: PosixQueue.create(called, mode, count, size),
            nbytes=count * size,
            named=named_queue(called, is_random=name is None),
        )

    @pid_or_current
    def open_posix_queue(self, pid: int, name: str) -> PosixQueue:
        """Open a POSIX message queue as a user."""
        name = arguments.checked_name(name)
        return self.table.acquire(pid, lambda: PosixQueue.open(name))

    @pid_or_current
    def create_sysv_queue(
        self, pid: int, key: int | None = None, *, mode: int = _PRIVATE
    ) -> SysvQueue:
        """Create a SysV message queue (msgget(2)); without a key, under one that is free.

        It is removed with its owner: whoever is blocked in it, in any OS process, gets EIDRM.
        """
        key, mode = arguments.key_or_free(key), arguments.checked_mode(mode)
        is_random = key is None
        # So much a new one has room for (msgget(2)).
        nbytes = limits.setting("kernel.msgmnb")

        def acquire(key: int) -> SysvQueue:
            return self.table.acquire(
                pid,
                lambda: SysvQueue.create(key, mode, is_random=is_random),
                nbytes=nbytes,
                named=named_by_key(SysvQueue, key, is_random=is_random),
            )

        return with_sysv_key(key, acquire)

    @pid_or_current
    def open_sysv_queue(self, pid: int, key: int) -> SysvQueue:
        """Open a SysV message queue as a user."""
        key = arguments.checked_key(key)
        return self.table.acquire(pid, lambda: SysvQueue.open(key))

    # -- semaphores ----------------------------------------------------------

    @pid_or_current
    def create_sysv_semaphore(
        self,
        pid: int,
        key: int | None = None,
        *,
        value: int = 1,
        undo: bool = False,
        mode: int = _PRIVATE,
    ) -> SysvSemaphore:
        """Create a SysV semaphore (semget(2)); without a key, under one that is free.

        It is removed with its owner: whoever waits for it, in any OS process, gets EIDRM. With
        `undo`, permits that were acquired through a handle come back with its holder's end.
        """
        key, mode = arguments.key_or_free(key), arguments.checked_mode(mode)
        value = checked_int("value", value, least=0, most=sysv_ipc.SEMAPHORE_VALUE_MAX)
        is_random = key is None

        def acquire(key: int) -> SysvSemaphore:
            return self.table.acquire(
                pid,
                lambda: SysvSemaphore.create(key, mode, value, is_random=is_random, undo=undo),
                named=named_by_key(SysvSemaphore, key, is_random=is_random),
            )

        return with_sysv_key(key, acquire)

    @pid_or_current
    def open_sysv_semaphore(self, pid: int, key: int, *, undo: bool = False) -> SysvSemaphore:
        """Open a SysV semaphore as a user."""
        key = arguments.checked_key(key)
        return self.table.acquire(pid, lambda: SysvSemaphore.open(key, undo=undo))

    @pid_or_current
    def create_posix_semaphore(
        self,
        pid: int,
        name: str | None = None,
        *,
        value: int = 1,
        undo: bool = False,
        mode: int = _PRIVATE,
    ) -> PosixSemaphore:
        """Create a POSIX semaphore (sem_open(3)); without a name, under one of its own.

        The name goes with the owner, as long as it is still this semaphore's.
        """
        called, mode = arguments.name_or_new(name), arguments.checked_mode(mode)
        value = checked_int("value", value, least=0, most=posix_ipc.SEMAPHORE_VALUE_MAX)
        return self.table.acquire(
            pid,
            lambda: PosixSemaphore.create(
                called, mode, value, undo=undo, is_journaled=self.table.keeps_journal
            ),
            named=named_semaphore(called, is_random=name is None),
        )

    @pid_or_current
    def open_posix_semaphore(self, pid: int, name: str, *, undo: bool = False) -> PosixSemaphore:
        """Open a POSIX semaphore as a user."""
        name = arguments.checked_name(name)
        return self.table.acquire(pid, lambda: PosixSemaphore.open(name, undo=undo))

    # -- giving back ---------------------------------------------------------

    @pid_or_current
    def close(self, pid: int, thing: object) -> None:
        """Give back anything that this owner has, as its end would. Idempotent.

        Of a connection only this end is closed, so that a child that has a copy keeps it. Raises
        NotOwnedError if it is another's, BusyResourceError while a thread does not leave it, and
        RefusedResourceError if it is closed, but may not be removed.
        """
        try:
            self.table.give_back(pid, thing, _close_by_hand)
        except NotOwnedError as error:
            if error.owner is not None or not _is_closed(thing):
                raise

    @pid_or_current
    def adopt(self, pid: int, resource: object, *, as_owner: bool = False) -> ResourceId | None:
        """Own a connection, listener, pipe transport, or what posix_ipc or sysv_ipc have made.

        A transport of a pipe that the same process owns goes with that, and under its id. What has
        a name or a key is adopted as by a user, and never removed, unless `as_owner` says that it
        is the process's to remove. Returns None for anything else, ValueError if it is closed.
        """
        handle = handle_on(resource, is_owner=as_owner)
        if handle is None:
            return None
        if isinstance(handle, TransportHandle) and (below := self._below(handle.above, pid)):
            self.table.check_admitted(pid)
            below.above = handle.above
            return self.table.find(pid, below)
        return self.table.add(pid, handle, handle.reserved, named=named_of(handle))

    @runs_inline
    def quiesce(self, pid: int) -> list[concurrent.futures.Future[Any]]:
        """Refuse sends, wake those who wait to send, and have transports send what they have."""
        owned = [handle for _, handle in self.table.owned(pid)]
        note_transports(owned)
        futures = [
            handle.stop_sending() if handle.above is None else handle.above.stop_sending()
            for handle in owned
        ]
        return [future for future in futures if future is not None]

    def cleanup(self, pid: int) -> CleanupStats:
        """Close, unlink and remove all that `pid` owns, newest first."""
        owned = [handle for _, handle in self.table.owned(pid)]
        # All sleepers are told first, so that they leave at the same time.
        for handle in owned:
            handle.wake_waiters()
        _have_let_go(owned)
        return self.table.cleanup(pid)

    # -- inside --------------------------------------------------------------

    def _below(self, made: PipeTransport, pid: int) -> Handle | None:
        """Find what `pid` owns that a transport was made of."""
        for descriptor in made.descriptors:
            owner, below = self.table.with_descriptor(descriptor.number) or (0, None)
            if owner == pid and below is not None and below.number == descriptor.number:
                return below
        return None

    def _known_native(self, thing: object) -> object:
        """Return what the table knows a thing by, or what a transport was made of."""
        native = native_of(thing)
        for part in parts_of(native) if is_transport(native) else ():
            _, below = self.table.with_descriptor(number_of(part)) or (0, None)
            if below is not None and below.above is not None and below.above.native is native:
                return below.identity
        return native

    def _acquire_pair(self, pid: int, other: int, make: Callable[[], tuple[H, J]]) -> tuple[H, J]:
        """Make two things with an owner each, once both may own them, or none at all."""
        made: list[tuple[H, J]] = []

        def make_first() -> Handle:
            made.append(make())
            return made[0][0]

        def make_second() -> Handle:
            self.table.acquire(pid, make_first)
            return made[0][1]

        try:
            self.table.acquire(other, make_second)
        except BaseException:
            for first, second in made:
                with contextlib.suppress(NotOwnedError):
                    self.table.give_back(pid, first)
                first.give_back()
                second.give_back()
            raise
        return made[0]


def _have_let_go(handles: list[Handle]) -> None:
    """Have event loops and selectors poll these no more: their numbers will be others'.

    But for transports, which close their numbers themselves.
    """
    numbered = {handle.number: handle for handle in handles if handle.above is None}
    numbered.pop(-1, None)
    found = let_all_go(numbered)
    for number, handle in numbered.items():
        handle.polling = found.get(number)


def _give_back(handle: Handle) -> Outcome:
    return _given_back(handle, handle.give_back)


def _close_by_hand(handle: Handle) -> Outcome:
    note_transports([handle])
    _have_let_go([handle])
    if isinstance(handle, ConnectionHandle):
        return _given_back(handle, handle.close)
    return _given_back(handle, handle.give_back)


def _given_back(handle: Handle, give_back: Callable[[], Outcome | None]) -> Outcome:
    if handle.above is not None:
        return give_back_above(handle, handle.above)
    if handle.polling is None:
        return give_back() or Outcome.RELEASED
    return handle.polling.then(give_back)


def _is_closed(thing: object) -> bool:
    """Whether it is of this kind and closed. Raises TypeError if it is of another."""
    try:
        if handle_on(thing, is_owner=False) is None:
            raise TypeError(f"expected something of kind ipc, got {thing!r}")
    except ValueError:
        return True
    return False
