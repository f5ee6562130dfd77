"""Bounded queues between the threads and event loops of this OS process."""

from __future__ import annotations

import concurrent.futures
import heapq
import itertools
import threading
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeVar, final

from probate import Outcome, forget_in_forked_child
from probate_ipc.errors import QueueClosedError, QueueEmptyError, QueueFullError
from probate_ipc.interruptible import TimeLimit
from probate_ipc.messages import Message
from probate_ipc.waiters import TaskWaiter, ThreadWaiter, wake_all, wake_next

if TYPE_CHECKING:
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
class InProcessQueue:
    """At most `maxsize` messages, and at most `max_bytes` bytes of them.

    Bytes-like messages (bytes, bytearray, memoryview) are copied, and received as `bytes`; other
    objects are held by reference and take none of `max_bytes`.

    Owned by one process, used by any thread or task. When the owner ends, sends are refused at
    once, receivers may take what is there during the grace, and then everybody who waits gets
    QueueClosedError and the rest is dropped. A termination waits for receivers only if `drain`
    promises that there are some: whether anybody will still read cannot be known, and a queue
    that nobody reads would use up the grace of every termination.
    """

    __slots__ = (
        "__weakref__",
        "_arrivals",
        "_drain",
        "_drained",
        "_getters",
        "_is_closed",
        "_is_refusing",
        "_kind",
        "_lock",
        "_max_bytes",
        "_maxsize",
        "_messages",
        "_nbytes",
        "_putters",
    )

    def __init__(
        self,
        maxsize: int,
        *,
        kind: QueueKind = QueueKind.FIFO,
        max_bytes: int = DEFAULT_BYTES,
        drain: bool = False,
    ) -> None:
        self._maxsize = _count("maxsize", maxsize, at_least=1)
        self._max_bytes = _count("max_bytes", max_bytes, at_least=0)
        self._kind = QueueKind(kind)
        self._drain = drain
        self._drained: concurrent.futures.Future[None] | None = None
        #: Never held while anybody waits, or while anybody's code runs.
        self._lock = threading.Lock()
        self._messages: deque[Message] | list[Message] = self._nothing()
        self._nbytes = 0
        self._arrivals = itertools.count(1)
        self._getters: deque[Waiter] = deque()
        self._putters: deque[Waiter] = deque()
        self._is_refusing = False
        self._is_closed = False
        forget_in_forked_child(self)

    def __repr__(self) -> str:
        return f"<InProcessQueue {self.describe()}>"

    # -- asking --------------------------------------------------------------

    @property
    def maxsize(self) -> int:
        """How many messages it holds at most."""
        return self._maxsize

    @property
    def max_bytes(self) -> int:
        """How many bytes its messages take up at most."""
        return self._max_bytes

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._is_closed

    @property
    def identity(self) -> object:
        """Itself."""
        return self

    @property
    def reserved(self) -> int:
        """`max_bytes`: all of it counts against the owner's limits, used or not."""
        return self._max_bytes

    def qsize(self) -> int:
        """How many messages there are at this moment."""
        return len(self._messages)

    def nbytes(self) -> int:
        """How many bytes the messages take up at this moment."""
        return self._nbytes

    def describe(self) -> str:
        """Its kind and how full it is."""
        return f"{self._kind} queue, {self.qsize()} of {self._maxsize} messages"

    # -- sending and receiving -----------------------------------------------

    def put(self, item: object, *, priority: int = 0, timeout: float | None = None) -> None:
        """Send a message, waiting for room for `timeout` seconds; None waits for ever.

        Raises QueueFullError if there was no room in time, QueueClosedError, ValueError for a
        message that can never fit, or for a priority where the queue has none.
        """
        limit = TimeLimit(timeout)
        message = self._message(item, priority)
        while (waiter := self._put_or_wait(message, ThreadWaiter)) is not None:
            try:
                is_woken = waiter.wait(limit.left())
            except BaseException:
                self._give_up(self._putters, waiter)
                raise
            if not is_woken and self._leave(self._putters, waiter):
                raise self._full(timeout)

    async def put_async(self, item: object, *, priority: int = 0) -> None:
        """As `put`, for a task; for a time limit use `asyncio.timeout`."""
        message = self._message(item, priority)
        while (waiter := self._put_or_wait(message, TaskWaiter)) is not None:
            try:
                await waiter.wait()
            except BaseException:
                self._give_up(self._putters, waiter)
                raise

    def put_dropping_oldest(self, item: object) -> int:
        """Send without waiting: the oldest messages make room. Returns how many were dropped."""
        message = self._message(item, 0)
        dropped: list[Message] = []
        with self._lock:
            self._check_open()
            while not self._has_room(message):
                dropped.append(self._pop())
            self._push(message)
            wake_next(self._getters)
        for each in dropped:
            each.clear()
        return len(dropped)

    def get(self, *, timeout: float | None = None) -> object:
        """Receive a message, waiting for one for `timeout` seconds; None waits for ever.

        Raises QueueEmptyError if none came in time, QueueClosedError if none can come any more.
        """
        limit = TimeLimit(timeout)
        while isinstance(found := self._get_or_wait(ThreadWaiter), ThreadWaiter):
            try:
                is_woken = found.wait(limit.left())
            except BaseException:
                self._give_up(self._getters, found)
                raise
            if not is_woken and self._leave(self._getters, found):
                raise self._empty(timeout)
        return found.take()

    async def get_async(self) -> object:
        """As `get`, for a task; for a time limit use `asyncio.timeout`."""
        while isinstance(found := self._get_or_wait(TaskWaiter), TaskWaiter):
            try:
                await found.wait()
            except BaseException:
                self._give_up(self._getters, found)
                raise
        return found.take()

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
                self._drained = concurrent.futures.Future()
            return self._drained

    def wake_waiters(self) -> None:
        """As `refuse_sends`."""
        self.stop_sending()

    def close(self) -> None:
        """Wake everybody who waits with QueueClosedError, and drop all messages. Idempotent."""
        with self._lock:
            self._is_refusing = self._is_closed = True
            messages, self._messages = self._messages, self._nothing()
            self._nbytes = 0
            wake_all(self._putters)
            wake_all(self._getters)
            drained, self._drained = self._drained, None
        for message in messages:
            message.clear()
        _set_done(drained)

    def give_back(self) -> Outcome:
        """Close it; ALREADY_GONE if it is closed."""
        if self._is_closed:
            return Outcome.ALREADY_GONE
        self.close()
        return Outcome.RELEASED

    def forget_parent(self) -> None:
        """Be closed in a forked child, where nobody is at the other end; clear nothing.

        The parent's messages are kept from being finalised here.
        """
        self._lock = threading.Lock()
        self._getters, self._putters = deque(), deque()
        self._is_refusing = self._is_closed = True

    # -- inside --------------------------------------------------------------

    def _nothing(self) -> deque[Message] | list[Message]:
        return [] if self._kind is QueueKind.PRIORITY else deque()

    def _message(self, item: object, priority: int) -> Message:
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise TypeError(f"a priority is an int, got {priority!r}")
        if priority and self._kind is not QueueKind.PRIORITY:
            raise ValueError("a FIFO queue has no priorities: make a priority queue")
        if self._is_refusing:
            raise self._closed_error()
        if isinstance(item, (bytes, bytearray, memoryview)):
            nbytes = item.nbytes if isinstance(item, memoryview) else len(item)
            if nbytes > self._max_bytes:
                raise ValueError(
                    f"a message of {nbytes} bytes never fits into a queue of {self._max_bytes}: "
                    "make the queue with more max_bytes, or send less at a time"
                )
        return Message(item, priority)

    def _has_room(self, message: Message) -> bool:
        has_bytes = self._nbytes + message.nbytes <= self._max_bytes
        return len(self._messages) < self._maxsize and has_bytes

    def _push(self, message: Message) -> None:
        message.order = (message.order[0], next(self._arrivals))
        self._nbytes += message.nbytes
        if isinstance(self._messages, deque):
            self._messages.append(message)
        else:
            heapq.heappush(self._messages, message)

    def _pop(self) -> Message:
        if isinstance(self._messages, deque):
            message = self._messages.popleft()
        else:
            message = heapq.heappop(self._messages)
        self._nbytes -= message.nbytes
        return message

    def _put_or_wait(self, message: Message, make_waiter: Callable[[], W]) -> W | None:
        """Send, or stand in line; None if it is sent."""
        with self._lock:
            self._check_open()
            if self._has_room(message):
                self._push(message)
                wake_next(self._getters)
                return None
            waiter = make_waiter()
            self._putters.append(waiter)
            return waiter

    def _get_or_wait(self, make_waiter: Callable[[], W]) -> Message | W:
        """Receive, or stand in line."""
        drained = None
        with self._lock:
            if not self._messages:
                self._check_open()
                waiter = make_waiter()
                self._getters.append(waiter)
                return waiter
            message = self._pop()
            wake_next(self._putters)
            if self._is_refusing and not self._messages:
                # Whoever else was promised a message waits for nothing now.
                wake_all(self._getters)
                drained, self._drained = self._drained, None
        _set_done(drained)
        return message

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
            raise self._closed_error()

    def _closed_error(self) -> QueueClosedError:
        state = "is closed" if self._is_closed else "takes nothing more: its owner is ending"
        return QueueClosedError(f"this {self._kind} queue {state}")

    def _full(self, timeout: float | None) -> QueueFullError:
        return QueueFullError(
            f"no room within {timeout} s: {self.describe()}, {self._nbytes} of {self._max_bytes} "
            "bytes; wait longer, or make it larger"
        )

    def _empty(self, timeout: float | None) -> QueueEmptyError:
        return QueueEmptyError(f"no message within {timeout} s: {self.describe()}")


def _set_done(future: concurrent.futures.Future[None] | None) -> None:
    if future is not None and future.set_running_or_notify_cancel():
        future.set_result(None)


def _count(name: str, value: int, *, at_least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is an int, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} is at least {at_least}, got {value}: every queue is bounded")
    return value
