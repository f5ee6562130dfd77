"""In-process queues: order, bounds, memory, and the end of all waiting."""

from __future__ import annotations

import asyncio
import queue as stdlib_queue
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from drivers import LoopThread
from ipc_peers import await_that
from threads import in_thread

from probate_ipc import QueueClosedError, QueueEmptyError, QueueFullError, QueueKind

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_ipc import InProcessQueue, IpcManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_messages_come_out_as_they_went_in(ipc: IpcManager, pid: int) -> None:
    """FIFO; other objects than bytes are held by reference."""
    queue = ipc.queue(pid, 3)
    thing = object()
    for item in (1, thing, "three"):
        queue.put(item)

    assert queue.qsize() == 3
    assert queue.get() == 1
    assert queue.get() is thing
    assert queue.get() == "three"


def test_the_lowest_priority_comes_first_and_equals_in_order(ipc: IpcManager, pid: int) -> None:
    """As in queue.PriorityQueue; items need no order of their own."""
    queue = ipc.queue(pid, 5, kind=QueueKind.PRIORITY)
    items = [object() for _ in range(4)]
    for item, priority in zip(items, (2, 1, 2, -1), strict=True):
        queue.put(item, priority=priority)

    assert [queue.get() for _ in items] == [items[3], items[1], items[0], items[2]]


def test_the_senders_buffer_may_be_reused(ipc: IpcManager, pid: int) -> None:
    """Bytes are copied into the queue's memory, and received as bytes."""
    queue = ipc.queue(pid, 4)
    buffer = bytearray(b"first")
    queue.put(buffer)
    queue.put(memoryview(buffer)[:2])
    buffer[:] = b"other"

    assert [queue.get(), queue.get()] == [b"first", b"fi"]


def test_message_memory_is_the_queues_until_received_and_zeroed_then(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """Receiver read memory of a dead sender, recycled to a third: it belongs to the queue until
    received, also if the sender dies, and is cleared before reuse.
    """
    queue = ipc.queue(pid, 4)
    sender = manager.create_process("sender")
    secret = bytearray(b"secret")
    with manager.process("sender"):
        queue.put(secret)
        queue.put(secret)
    secret[:] = b"reused"
    manager.terminate_process(sender.pid)
    blocks = [cast("bytearray", message.body) for *_, message in queue._messages]

    assert queue.get() == b"secret"
    assert blocks == [bytes(6), b"secret"]

    manager.terminate_process(pid)

    assert blocks == [bytes(6), bytes(6)]


def test_bytes_are_bounded_and_reserved(ipc: IpcManager, pid: int) -> None:
    """What may be held counts as owned bytes, what is held never exceeds it."""
    queue = ipc.queue(pid, 100, max_bytes=10)
    queue.put(bytes(6))

    assert ipc.table.usage(pid).nbytes == 10
    with pytest.raises(QueueFullError):
        queue.put(bytes(5), timeout=0)
    with pytest.raises(ValueError, match="never fits"):
        queue.put(bytes(11))

    queue.put(bytes(4), timeout=0)

    assert queue.nbytes() == 10

    queue.get()
    queue.put(b"", timeout=0)

    assert queue.nbytes() == 4


def test_full_and_empty_are_the_standard_librarys_too(ipc: IpcManager, pid: int) -> None:
    """QueueFullError is a queue.Full and QueueEmptyError a queue.Empty; both are time-outs."""
    queue = ipc.queue(pid, 1)
    with pytest.raises(stdlib_queue.Empty) as empty:
        queue.get(timeout=0.01)
    queue.put(1)
    with pytest.raises(stdlib_queue.Full) as full:
        queue.put(2, timeout=0.01)

    assert (type(empty.value), type(full.value)) == (QueueEmptyError, QueueFullError)
    assert isinstance(empty.value, TimeoutError)
    assert isinstance(full.value, TimeoutError)


@pytest.mark.parametrize("way", ["get", "put", "get_async", "put_async"])
def test_everybody_who_waits_is_woken_by_the_end(
    manager: ProcessManager, ipc: IpcManager, pid: int, way: str
) -> None:
    """Threads and tasks, of whichever loop, get QueueClosedError."""
    queue = ipc.queue(pid, 1)
    if "put" in way:
        queue.put(0)
    arguments = (1,) if "put" in way else ()
    call = getattr(queue, way)
    with LoopThread() as loop:
        if way.endswith("async"):
            future = asyncio.run_coroutine_threadsafe(call(*arguments), loop.loop)
            await_that(lambda: bool(queue._getters or queue._putters))
            manager.terminate_process(pid)

            with pytest.raises(QueueClosedError):
                future.result(5)
        else:
            threads = [in_thread(lambda: call(*arguments)) for _ in range(3)]
            await_that(lambda: len(queue._getters) + len(queue._putters) == 3)
            manager.terminate_process(pid)
            for thread, _ in threads:
                thread.join(5)

            assert [type(outcome[0]) for _, outcome in threads] == [QueueClosedError] * 3


def test_quiesce_refuses_sends_and_lets_receivers_drain(ipc: IpcManager, pid: int) -> None:
    """Senders are refused and woken at once; receivers get what is there, and the end then."""
    queue = ipc.queue(pid, 1)
    queue.put("there")
    thread, outcome = in_thread(lambda: queue.put("too late"))
    await_that(lambda: bool(queue._putters))

    assert ipc.quiesce(pid) == []

    thread.join(5)

    assert isinstance(outcome[0], QueueClosedError)
    assert queue.get() == "there"
    with pytest.raises(QueueClosedError):
        queue.get()


def test_an_unread_queue_does_not_eat_the_grace(ipc: IpcManager, pid: int) -> None:
    """Nothing is waited for unless somebody was promised to read."""
    ipc.queue(pid, 2).put("unread")

    assert ipc.quiesce(pid) == []


def test_a_promised_reader_is_waited_for(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """With `drain` the grace lasts until the last message is received, and no longer."""
    queue = ipc.queue(pid, 200, drain=True)
    for number in range(200):
        queue.put(number)

    def read() -> list[object]:
        got: list[object] = []
        try:
            while True:
                got.append(queue.get())
                threading.Event().wait(0.0001)
        except QueueClosedError:
            return got

    thread, outcome = in_thread(read)
    result = manager.terminate_process(pid, grace=5)
    thread.join(5)

    assert outcome == [list(range(200))]
    assert result.stats.duration_seconds < 4


def test_a_drained_queue_is_not_waited_for(ipc: IpcManager, pid: int) -> None:
    """With `drain` and nothing in it there is nothing to wait for."""
    queue = ipc.queue(pid, 2, drain=True)
    queue.put(1)
    queue.get()

    assert ipc.quiesce(pid) == []


def test_what_is_not_received_is_dropped(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """Cleanup lets go of the messages, counts the queue, and frees its bytes."""
    queue = ipc.queue(pid, 2, max_bytes=1000)
    queue.put(b"dropped")
    result = manager.terminate_process(pid)

    assert queue.closed
    assert queue.qsize() == 0
    assert (result.stats.resources_freed, result.stats.bytes_freed) == (1, 1000)


def test_a_cancelled_receiver_passes_its_turn_on(ipc: IpcManager, pid: int) -> None:
    """A task that is cancelled at the moment it is woken loses no message for the others."""
    queue = ipc.queue(pid, 10)

    async def scenario() -> object:
        first = asyncio.create_task(queue.get_async())
        second = asyncio.create_task(queue.get_async())
        await asyncio.sleep(0)
        queue.put("message")
        first.cancel()
        return await asyncio.wait_for(second, 5)

    assert asyncio.run(scenario()) == "message"


def test_a_waiter_whose_loop_is_gone_is_passed_over(ipc: IpcManager, pid: int) -> None:
    """A turn given to a closed event loop would be lost for all."""
    queue = ipc.queue(pid, 10)
    loop = asyncio.new_event_loop()
    task = loop.create_task(queue.get_async())
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))

    class Gone:
        def wake(self) -> bool:
            return False

    queue._getters.append(Gone())
    loop.close()
    thread, outcome = in_thread(queue.get)
    await_that(lambda: len(queue._getters) == 2)
    queue.put("message")
    thread.join(5)

    assert outcome == ["message"]


@pytest.mark.parametrize("is_async", [False, True])
def test_nothing_is_lost_or_doubled_between_many_threads(
    ipc: IpcManager, pid: int, is_async: bool
) -> None:
    """Producers and consumers of both sorts on a queue of two: each message arrives once."""
    queue = ipc.queue(pid, 2)
    each = 300

    def produce(base: int) -> None:
        for number in range(each):
            queue.put(base + number)

    def consume() -> list[object]:
        return [queue.get() for _ in range(each)]

    async def consume_async() -> list[object]:
        return [await queue.get_async() for _ in range(each)]

    with LoopThread() as loop:
        producers = [in_thread(partial(produce, base)) for base in (0, 10_000)]
        consumers = [in_thread(consume)]
        got: list[Any] = []
        if is_async:
            future = asyncio.run_coroutine_threadsafe(consume_async(), loop.loop)
            got += future.result(20)
        else:
            consumers.append(in_thread(consume))
        for thread, _ in producers + consumers:
            thread.join(20)
    for _, outcome in consumers:
        got += cast("list[Any]", outcome[0])

    assert sorted(got) == sorted([*range(each), *range(10_000, 10_000 + each)])


def test_puts_and_gets_race_the_owners_end(manager: ProcessManager, ipc: IpcManager) -> None:
    """Whenever the owner ends, each side either has done its work or gets QueueClosedError."""
    for _ in range(60):
        owner = manager.create_process("racing").pid
        queue = ipc.queue(owner, 1)
        start = threading.Barrier(3)

        def work(which: str, queue: InProcessQueue = queue, start: Any = start) -> None:
            start.wait()
            while True:
                queue.put(b"x") if which == "put" else queue.get()

        threads = [in_thread(partial(work, which)) for which in ("put", "get")]
        start.wait()
        result = manager.terminate_process(owner)
        for thread, _ in threads:
            thread.join(5)

        assert [type(outcome[0]) for _, outcome in threads] == [QueueClosedError] * 2
        assert result.is_success
        assert result.stats.resources_freed == 1
