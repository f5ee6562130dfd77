"""Bounded queues between the threads and event loops of this OS process."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, final

from probate.system import Future, checked_int, forget_in_forked_child
from probate_ipc.errors import QueueClosedError, QueueEmptyError, QueueFullError
from probate_ipc.handle import Handle
from probate_ipc.interruptible import TimeLimit
from probate_ipc.waiters import TaskWaiter, ThreadWaiter, wake_all, wake_next

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable

    from probate_ipc.waiters import Waiter

W = TypeVar("W", bound="Waiter")

#: Bytes of messages that a queue holds unless told otherwise: as many as a pipe (pipe(7)).
DEFAULT_BYTES: Final = 65536


class QueueKind(StrEnum):
    """In which order messages come out."""

    #: As they were sent.
    FIFO = "fifo"
    #: Lowest priority number first, as in `queue.PriorityQueue`; equal ones as they were sent.
    PRIORITY = "priority"


@final
class Message:
    """One message, and the memory that it lies in.

    Bytes are copied into memory of the queue's own, so that the sender may reuse its buffer, or
    die. They lie there until they are received or dropped, and are overwritten with zeros then,
    so that nobody who gets that memory next can read them. Any other object is held by
    reference: sender and receiver share it.
    """

    __slots__ = ("body", "nbytes")

    def __init__(self, item: object) -> None:
        self.body = bytearray(item) if isinstance(item, (bytes, bytearray, memoryview)) else item
        #: Bytes of the queue's memory.
        self.nbytes = len(self.body) if isinstance(self.body, bytearray) else 0

    def take(self) -> object:
        """Hand the message over, bytes as `bytes`; nothing is left of it here."""
        body = bytes(self.body) if isinstance(self.body, bytearray) else self.body
        self.clear()
        return body

    def clear(self) -> None:
        """Overwrite the bytes with zeros; let go of any other object."""
        if isinstance(self.body, bytearray):
            self.body[:] = bytes(self.nbytes)
        self.body = None


@final
class InProcessQueue(Handle):
    """At most `maxsize` messages, and at most `max_bytes` bytes of them.

    Bytes-like messages (bytes, bytearray, memoryview) are copied, and received as `bytes`; other
    objects are held by reference and take none of `max_bytes`.

    Owned by one process, used by any thread or task. When the owner ends, sends are refused at
    once, receivers may take what is there during the grace, and then everybody who waits gets
    QueueClosedError and the rest is dropped. A termination waits for receivers only if `drain`
    promises that there are some: whether anybody will still read cannot be known, and a queue
    that nobody reads would use up the grace of every termination.
    """

    def __init__(
        self,
        maxsize: int,
        *,
        kind: QueueKind = QueueKind.FIFO,
        max_bytes: int = DEFAULT_BYTES,
        drain: bool = False,
    ) -> None:
        #: How many messages it holds at most.
        self.maxsize = checked_int("maxsize", maxsize, least=1)
        #: How many bytes its messages take up at most.
        self.max_bytes = checked_int("max_bytes", max_bytes, least=0)
        #: All of it counts against the owner's limits, used or not.
        self.reserved = self.max_bytes
        self.kind = QueueKind(kind)
        self._drain = drain
        self._drained: concurrent.futures.Future[None] | None = None
        #: Never held while anybody waits, or while anybody's code runs.
        self._lock = threading.Lock()
        #: A heap by priority, then by arrival.
        self._messages: list[tuple[int, int, Message]] = []
        self._inherited: object = None
        self._arrivals = itertools.count()
        self._nbytes = 0
        self._getters: deque[Waiter] = deque()
        self._putters: deque[Waiter] = deque()
        self._is_refusing = False
        self._is_closed = False
        forget_in_forked_child(self)

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._is_closed

    def qsize(self) -> int:
        """Return how many messages there are at this moment."""
        return len(self._messages)

    def nbytes(self) -> int:
        """Return how many bytes the messages take up at this moment."""
        return self._nbytes

    def describe(self) -> str:
        """Describe it by its kind, and by how full it is."""
        return f"{self.kind} queue, {self.qsize()} of {self.maxsize} messages"

    # -- sending and receiving -----------------------------------------------

    def put(self, item: object, *, priority: int = 0, timeout: float | None = None) -> None:
        """Send a message, waiting for room for `timeout` seconds; None waits for ever.

        Raises QueueFullError if there was no room in time, QueueClosedError, ValueError for a
        message that can never fit, or for a priority where the queue has none.
        """
        limit = TimeLimit(timeout)
        push = partial(self._push, self._message(item, priority), priority)
        if self._until(push, self._putters, limit) is None:
            raise QueueFullError(
                f"no room within {timeout} s: {self.describe()}, {self._nbytes} of "
                f"{self.max_bytes} bytes; wait longer, or make it larger"
            )

    async def put_async(self, item: object, *, priority: int = 0) -> None:
        """Send a message as `put` does, from a task; for a time limit use `asyncio.timeout`."""
        push = partial(self._push, self._message(item, priority), priority)
        await self._until_async(push, self._putters)

    def get(self, *, timeout: float | None = None) -> object:
        """Receive a message, waiting for one for `timeout` seconds; None waits for ever.

        Raises QueueEmptyError if none came in time, QueueClosedError if none can come any more.
        """
        message = self._until(self._pop, self._getters, TimeLimit(timeout))
        if message is None:
            raise QueueEmptyError(f"no message within {timeout} s: {self.describe()}")
        return self._received(message)

    async def get_async(self) -> object:
        """Receive a message as `get` does, in a task; for a time limit use `asyncio.timeout`."""
        return self._received(await self._until_async(self._pop, self._getters))

    # -- ending --------------------------------------------------------------

    def stop_sending(self) -> concurrent.futures.Future[None] | None:
        """Take nothing more; receivers get what is there, and QueueClosedError after that.

        Returns a future for when all is received, if the queue was made with `drain`.
        """
        with self._lock:
            self._is_refusing = True
            wake_all(self._putters)
            if not self._messages:
                wake_all(self._getters)
                return None
            if self._drain and self._drained is None:
                self._drained = Future()
            return self._drained

    def wake_waiters(self) -> None:
        """Wake whoever waits to send; receivers get what is there first."""
        self.stop_sending()

    def close(self) -> None:
        """Wake everybody who waits with QueueClosedError, and drop all messages. Idempotent."""
        with self._lock:
            self._is_refusing = self._is_closed = True
            messages, self._messages = self._messages, []
            self._nbytes = 0
            wake_all(self._putters)
        for _, _, message in messages:
            message.clear()
        self._note_drained()

    def forget_parent(self) -> None:
        """Be closed in a forked child, where nobody is at the other end; clear nothing."""
        self._lock = threading.Lock()
        # The parent's messages are kept from being finalised here.
        self._inherited, self._messages = self._messages, []
        self._getters, self._putters = deque(), deque()
        self._is_refusing = self._is_closed = True

    # -- inside --------------------------------------------------------------

    def _message(self, item: object, priority: int) -> Message:
        if priority != 0 and checked_int("priority", priority) and self.kind is QueueKind.FIFO:
            raise ValueError("a FIFO queue has no priorities: make one of QueueKind.PRIORITY")
        self._check_open()
        message = Message(item)
        if message.nbytes > self.max_bytes:
            message.clear()
            raise ValueError(
                f"a message of {message.nbytes} bytes never fits into a queue of "
                f"{self.max_bytes}: make the queue with more max_bytes, or send less at a time"
            )
        return message

    def _push(self, message: Message, priority: int) -> Message | None:
        """Take a message in; None if there is no room. To be called with the lock held."""
        self._check_open()
        if len(self._messages) >= self.maxsize or self._nbytes + message.nbytes > self.max_bytes:
            return None
        self._nbytes += message.nbytes
        heapq.heappush(self._messages, (priority, next(self._arrivals), message))
        wake_next(self._getters)
        return message

    def _pop(self) -> Message | None:
        """Take a message out; None if there is none. To be called with the lock held."""
        if not self._messages:
            self._check_open()
            return None
        _, _, message = heapq.heappop(self._messages)
        self._nbytes -= message.nbytes
        wake_next(self._putters)
        return message

    def _received(self, message: Message) -> object:
        if self._is_refusing:
            self._note_drained()
        return message.take()

    def _note_drained(self) -> None:
        """Tell those who wait for the last message, if it is gone, that it is."""
        with self._lock:
            if self._messages:
                return
            # Whoever else was promised a message waits for nothing now.
            wake_all(self._getters)
            drained, self._drained = self._drained, None
        if drained is not None and drained.set_running_or_notify_cancel():
            drained.set_result(None)

    def _until(
        self, attempt: Callable[[], Message | None], line: deque[Waiter], limit: TimeLimit
    ) -> Message | None:
        """Attempt until it succeeds, standing in line in between; None when the time is up."""
        while isinstance(found := self._attempt(attempt, line, ThreadWaiter), ThreadWaiter):
            try:
                is_woken = found.wait(limit.left())
            except BaseException:
                self._give_up(line, found)
                raise
            if not is_woken and self._leave(line, found):
                return None
        return found

    async def _until_async(
        self, attempt: Callable[[], Message | None], line: deque[Waiter]
    ) -> Message:
        while isinstance(found := self._attempt(attempt, line, TaskWaiter), TaskWaiter):
            try:
                await found.wait()
            except BaseException:
                self._give_up(line, found)
                raise
        return found

    def _attempt(
        self,
        attempt: Callable[[], Message | None],
        line: deque[Waiter],
        make_waiter: Callable[[], W],
    ) -> Message | W:
        """Succeed, or stand in line."""
        with self._lock:
            message = attempt()
            if message is not None:
                return message
            waiter = make_waiter()
            line.append(waiter)
            return waiter

    def _leave(self, line: deque[Waiter], waiter: Waiter) -> bool:
        """Leave the line; False if it was this one's turn just now."""
        with self._lock:
            try:
                line.remove(waiter)
            except ValueError:
                return False
            return True

    def _give_up(self, line: deque[Waiter], waiter: Waiter) -> None:
        """Leave the line for good, and pass on a turn that had come."""
        if not self._leave(line, waiter):
            with self._lock:
                wake_next(line)

    def _check_open(self) -> None:
        if self._is_refusing:
            state = "is closed" if self._is_closed else "takes nothing more: its owner is ending"
            raise QueueClosedError(f"this {self.kind} queue {state}")
