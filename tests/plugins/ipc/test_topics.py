"""Publish and subscribe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from ipc_peers import await_that
from threads import in_thread

from probate_ipc import Overflow, QueueClosedError, QueueFullError

if TYPE_CHECKING:
    from probate import Process, ProcessManager
    from probate_ipc import IpcManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture
def people(manager: ProcessManager) -> tuple[Process, Process, Process]:
    """An owner and two subscribers."""
    owner, first, second = (manager.create_process(name) for name in ("owner", "first", "second"))
    return owner, first, second


def test_every_subscriber_gets_every_message(
    ipc: IpcManager, people: tuple[Process, Process, Process]
) -> None:
    """From its subscription on; nobody is no error."""
    owner, first, second = people
    topic = ipc.topic(owner.pid, "news")

    assert topic.publish("to nobody") == 0

    one = ipc.subscribe(first.pid, topic)
    topic.publish("to one")
    two = ipc.subscribe(second.pid, topic)

    assert topic.publish(b"to both") == 2
    assert [one.get(), one.get(), two.get()] == ["to one", b"to both", b"to both"]


def test_a_subscriber_dies_and_the_topic_lives(
    manager: ProcessManager, ipc: IpcManager, people: tuple[Process, Process, Process]
) -> None:
    """The user's death ends its subscription and nothing else."""
    owner, first, second = people
    topic = ipc.topic(owner.pid)
    one, two = ipc.subscribe(first.pid, topic), ipc.subscribe(second.pid, topic)
    result = manager.terminate_process(first.pid)

    assert result.stats.by_type == {"ipc": 1}
    assert one.closed
    assert topic.publish("still here") == 1
    assert two.get() == "still here"


def test_a_publisher_blocked_on_a_dead_subscriber_goes_on(
    manager: ProcessManager, ipc: IpcManager, people: tuple[Process, Process, Process]
) -> None:
    """It is woken, and the others get the message."""
    owner, first, second = people
    topic = ipc.topic(owner.pid)
    slow, quick = ipc.subscribe(first.pid, topic, 1), ipc.subscribe(second.pid, topic)
    topic.publish(1)
    thread, outcome = in_thread(lambda: topic.publish(2))
    await_that(lambda: bool(slow.queue._putters))
    manager.terminate_process(first.pid)
    thread.join(5)

    assert outcome == [1]
    assert [quick.get(), quick.get()] == [1, 2]


def test_the_topics_end_wakes_publishers_and_subscribers(
    manager: ProcessManager, ipc: IpcManager, people: tuple[Process, Process, Process]
) -> None:
    """Publishers are refused; subscribers get what they have, and the end then."""
    owner, first, second = people
    topic = ipc.topic(owner.pid)
    full, waiting = ipc.subscribe(first.pid, topic, 1), ipc.subscribe(second.pid, topic)
    topic.publish("last")
    waiting.get()
    publisher, published = in_thread(lambda: topic.publish("never"))
    subscriber, received = in_thread(waiting.get)
    await_that(lambda: bool(full.queue._putters and waiting.queue._getters))
    manager.terminate_process(owner.pid)
    publisher.join(5)
    subscriber.join(5)

    assert isinstance(published[0], QueueClosedError)
    assert isinstance(received[0], QueueClosedError)
    assert full.get() == "last"
    with pytest.raises(QueueClosedError):
        full.get()
    with pytest.raises(QueueClosedError):
        topic.publish("more")
    with pytest.raises(QueueClosedError):
        ipc.subscribe(first.pid, topic)


def test_overflow_drops_the_oldest_or_is_an_error(
    ipc: IpcManager, people: tuple[Process, Process, Process]
) -> None:
    """Each subscriber chooses; an error comes after all others have the message."""
    owner, first, second = people
    topic = ipc.topic(owner.pid)
    latest = ipc.subscribe(first.pid, topic, 2, overflow=Overflow.DROP_OLDEST)
    strict = ipc.subscribe(second.pid, topic, 2, overflow=Overflow.ERROR)
    last = ipc.subscribe(second.pid, topic)
    topic.publish(b"1")
    topic.publish(b"2")
    with pytest.raises(QueueFullError, match="1 of 3 subscribers"):
        topic.publish(b"3")

    assert [latest.get(), latest.get(), latest.dropped] == [b"2", b"3", 1]
    assert [strict.get(), strict.get(), strict.queue.qsize()] == [b"1", b"2", 0]
    assert last.queue.qsize() == 3


def test_a_publishers_time_is_limited(
    ipc: IpcManager, people: tuple[Process, Process, Process]
) -> None:
    """The timeout is for all subscribers together."""
    owner, first, second = people
    topic = ipc.topic(owner.pid)
    for pid in (first.pid, second.pid):
        ipc.subscribe(pid, topic, 1)
    topic.publish(1)

    with pytest.raises(QueueFullError, match="2 of 2"):
        topic.publish(2, timeout=0.02)


def test_tasks_publish_and_receive(
    ipc: IpcManager, people: tuple[Process, Process, Process]
) -> None:
    """Without blocking their loop."""
    owner, first, _ = people
    topic = ipc.topic(owner.pid)
    subscription = ipc.subscribe(first.pid, topic, 1)

    async def scenario() -> list[object]:
        async def publish() -> None:
            for number in range(5):
                assert await topic.publish_async(number) == 1

        publisher = asyncio.create_task(publish())
        got = [await subscription.get_async() for _ in range(5)]
        await publisher
        return got

    assert asyncio.run(scenario()) == [0, 1, 2, 3, 4]


def test_closing_a_subscription_gives_it_back(
    ipc: IpcManager, people: tuple[Process, Process, Process]
) -> None:
    """By the manager; twice is once."""
    owner, first, _ = people
    topic = ipc.topic(owner.pid)
    subscription = ipc.subscribe(first.pid, topic)
    ipc.close(first.pid, subscription)
    ipc.close(first.pid, subscription)

    assert topic.publish("unheard") == 0
    assert not ipc.owns_any(first.pid)
