"""Publish and subscribe, within this OS process."""

from __future__ import annotations

import threading
from enum import StrEnum
from typing import Final, final

from probate import Outcome, forget_in_forked_child
from probate_ipc.errors import QueueClosedError, QueueFullError
from probate_ipc.inprocess import DEFAULT_BYTES, InProcessQueue
from probate_ipc.interruptible import TimeLimit

#: Messages that a subscription holds unless told otherwise.
DEFAULT_MESSAGES: Final = 64


class Overflow(StrEnum):
    """What becomes of a message for which a subscription has no room."""

    #: The publisher waits, until there is room, the subscription ends, or its time is up.
    BLOCK = "block"
    #: The oldest messages of the subscription are dropped, and counted in `dropped`.
    DROP_OLDEST = "drop oldest"
    #: The publisher gets QueueFullError, after all other subscribers have got the message.
    ERROR = "error"


@final
class Topic:
    """Hands each message to all who are subscribed at that moment.

    Owned by one process, published to by any. It lives on when a subscriber dies; when its owner
    ends, publishers are refused, and subscribers get what they have and QueueClosedError then.
    """

    __slots__ = (
        "__weakref__",
        "_is_closed",
        "_is_refusing",
        "_lock",
        "_subscriptions",
        "name",
    )

    reserved = 0

    def __init__(self, name: str = "") -> None:
        if not isinstance(name, str):
            raise TypeError(f"a topic's name is a string, got {name!r}")
        self.name = name
        self._lock = threading.Lock()
        #: Where messages go, in order of subscription. It says nothing of who owns what.
        self._subscriptions: dict[Subscription, None] = {}
        self._is_refusing = False
        self._is_closed = False
        forget_in_forked_child(self)

    def __repr__(self) -> str:
        return f"<Topic {self.describe()}>"

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._is_closed

    @property
    def identity(self) -> object:
        """Itself."""
        return self

    def describe(self) -> str:
        """Its name, and how many are subscribed."""
        return f"topic {self.name!r}, {len(self._subscriptions)} subscriptions"

    def publish(self, message: object, *, timeout: float | None = None) -> int:
        """Hand a message to every subscriber, in turn; return how many got it.

        `timeout` is in seconds and for all of them together. Raises QueueFullError if some had
        no room, when the others have got it; QueueClosedError if the topic is closed; ValueError
        for bytes that never fit into a subscription, when those before it have got them.
        """
        limit = TimeLimit(timeout)
        count, full = 0, []
        for each in self._targets():
            try:
                if each.overflow is Overflow.BLOCK:
                    each.queue.put(message, timeout=limit.left())
                else:
                    each.take_at_once(message)
                count += 1
            except QueueFullError:
                full.append(each)
            except QueueClosedError:
                # The subscriber's end is no concern of the publisher's; the topic's is.
                self._check_open()
        return self._counted(count, full)

    async def publish_async(self, message: object) -> int:
        """As `publish`, for a task; for a time limit use `asyncio.timeout`."""
        count, full = 0, []
        for each in self._targets():
            try:
                if each.overflow is Overflow.BLOCK:
                    await each.queue.put_async(message)
                else:
                    each.take_at_once(message)
                count += 1
            except QueueFullError:
                full.append(each)
            except QueueClosedError:
                self._check_open()
        return self._counted(count, full)

    def stop_sending(self) -> None:
        """Take no more messages, and wake publishers who wait for room."""
        with self._lock:
            self._is_refusing = True
            subscriptions = list(self._subscriptions)
        for each in subscriptions:
            each.queue.stop_sending()

    def wake_waiters(self) -> None:
        """As `refuse_sends`."""
        self.stop_sending()

    def close(self) -> None:
        """End it: subscribers get what they have, and QueueClosedError then. Idempotent."""
        self.stop_sending()
        with self._lock:
            self._is_closed = True
            self._subscriptions = {}

    def give_back(self) -> Outcome:
        """Close it; ALREADY_GONE if it is closed."""
        if self._is_closed:
            return Outcome.ALREADY_GONE
        self.close()
        return Outcome.RELEASED

    def admit(self, subscription: Subscription) -> None:
        """Send to `subscription` from now on. Raises QueueClosedError if the topic is closed."""
        with self._lock:
            self._check_open()
            self._subscriptions[subscription] = None

    def dismiss(self, subscription: Subscription) -> None:
        """Send to `subscription` no more."""
        with self._lock:
            self._subscriptions.pop(subscription, None)

    def forget_parent(self) -> None:
        """Be closed in a forked child: the subscribers are in the parent."""
        self._lock = threading.Lock()
        self._is_refusing = self._is_closed = True

    def _targets(self) -> list[Subscription]:
        with self._lock:
            self._check_open()
            return list(self._subscriptions)

    def _check_open(self) -> None:
        if self._is_refusing:
            raise QueueClosedError(f"topic {self.name!r} is closed, or its owner is ending")

    def _counted(self, count: int, full: list[Subscription]) -> int:
        if full:
            raise QueueFullError(
                f"topic {self.name!r}: {len(full)} of {len(full) + count} subscribers had no room; "
                "wait longer, or let them subscribe with Overflow.DROP_OLDEST"
            )
        return count


@final
class Subscription:
    """What one subscriber has yet to receive from a topic. Owned by the subscriber."""

    __slots__ = ("_topic", "dropped", "overflow", "queue")

    def __init__(
        self,
        topic: Topic,
        maxsize: int = DEFAULT_MESSAGES,
        *,
        overflow: Overflow = Overflow.BLOCK,
        max_bytes: int = DEFAULT_BYTES,
    ) -> None:
        self.queue = InProcessQueue(maxsize, max_bytes=max_bytes)
        self.overflow = Overflow(overflow)
        #: How many messages were dropped for want of room.
        self.dropped = 0
        self._topic = topic

    def __repr__(self) -> str:
        return f"<Subscription {self.describe()}>"

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self.queue.closed

    @property
    def identity(self) -> object:
        """Itself."""
        return self

    @property
    def reserved(self) -> int:
        """Bytes that its messages may take up."""
        return self.queue.max_bytes

    def describe(self) -> str:
        """The topic, and how much is waiting."""
        return f"subscription to {self._topic.name!r}: {self.queue.describe()}"

    def get(self, *, timeout: float | None = None) -> object:
        """Receive a message, as `InProcessQueue.get`."""
        return self.queue.get(timeout=timeout)

    async def get_async(self) -> object:
        """As `get`, for a task."""
        return await self.queue.get_async()

    def take_at_once(self, message: object) -> None:
        """Take a message without waiting, or raise QueueFullError: as `overflow` says."""
        if self.overflow is Overflow.DROP_OLDEST:
            self.dropped += self.queue.put_dropping_oldest(message)
        else:
            self.queue.put(message, timeout=0)

    def stop_sending(self) -> None:
        """Take no more messages; a publisher who waits for room goes on without it."""
        self.queue.stop_sending()

    def wake_waiters(self) -> None:
        """As `refuse_sends`."""
        self.stop_sending()

    def close(self) -> None:
        """End the subscription: the topic forgets it, and its messages are dropped."""
        self._topic.dismiss(self)
        self.queue.close()

    def give_back(self) -> Outcome:
        """Close it; ALREADY_GONE if it is closed."""
        if self.closed:
            return Outcome.ALREADY_GONE
        self.close()
        return Outcome.RELEASED
