"""The plugin as a whole: two halves, one table, and terminations of every sort."""

from __future__ import annotations

import asyncio
import os
import threading
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest
from threads import in_thread

import probate_rings
from probate import (
    AlreadyOwnedError,
    CleanupStats,
    NotOwnedError,
    ProcessManager,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
    ResourceOrchestrator,
    UnadoptableError,
)
from probate.testing.witness import KernelView
from probate_rings import IoUringManager, RingClosedError, RingResource, ZeroCopyIpc, ZeroCopyRing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from probate_rings import IoUring

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_the_public_names_are_there() -> None:
    """What `__all__` names exists, sorted; the entry point is a class called without arguments."""
    (entry,) = entry_points(group="probate.resources", name="rings")

    assert list(probate_rings.__all__) == sorted(probate_rings.__all__)
    assert all(hasattr(probate_rings, name) for name in probate_rings.__all__)
    assert entry.load() is RingResource
    assert entry.load()().ordering().priority == 30


def test_both_halves_are_there_from_the_start() -> None:
    """`manager` is the zero-copy one, which may be given."""
    resource = RingResource()
    ipc = ZeroCopyIpc()

    assert isinstance(resource.zerocopy, ZeroCopyIpc)
    assert isinstance(resource.iouring, IoUringManager)
    assert resource.manager is resource.zerocopy
    assert RingResource(ipc).manager is ipc


def test_managers_share_what_their_table_holds(iouring: IoUringManager) -> None:
    """Made before the resource or beside it: their rings count, and end, together."""
    zerocopy = ZeroCopyIpc()
    beside = type(iouring)(zerocopy.table)
    ring, uring = zerocopy.create_ring(7), beside.create_ring(7, 4)
    resource = RingResource(zerocopy)
    late = resource.iouring.create_ring(7, 4)

    assert [info.description for info in resource.usage(7).resources] == [
        repr(owned) for owned in (ring, uring, late)
    ]

    stats = ResourceOrchestrator().register(resource).cleanup_process(7).stats

    assert stats.by_type == {"rings": 3}
    assert stats.bytes_freed == ring.nbytes + 2 * uring.nbytes
    assert all(owned.closed for owned in (ring, uring, late))


def test_many_rings_for_one_process(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """A second create_ring replaced the first unseen: each is its own, and all are freed."""
    process = manager.create_process("many")
    rings = [zerocopy.create_ring(process.pid, slots=number) for number in range(1, 21)]

    assert len({ring.fileno() for ring in rings}) == 20
    assert process.usage()["rings"].count == 20

    result = manager.terminate_process(process.pid)

    assert result.stats.by_type == {"rings": 20}
    assert result.stats.bytes_freed == sum(ring.nbytes for ring in rings)


def test_newest_first_over_both_halves(
    manager: ProcessManager,
    rings: RingResource,
    iouring: IoUringManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One table: the order of acquisition holds whatever sort of ring it was."""
    process = manager.create_process("order")
    order: list[str] = []
    for cls in (ZeroCopyRing, probate_rings.IoUring):
        release: Callable[..., object] = cls.release

        def noted(
            self: object, *args: object, release: Callable[..., object] = release, **kwargs: object
        ) -> object:
            order.append(type(self).__name__)
            return release(self, *args, **kwargs)

        monkeypatch.setattr(cls, "release", noted)
    rings.zerocopy.create_ring(process.pid)
    iouring.create_ring(process.pid, 2)
    rings.zerocopy.create_ring(process.pid)
    manager.terminate_process(process.pid)

    assert order == ["ZeroCopyRing", "IoUring", "ZeroCopyRing"]


def test_limits_count_both_halves(
    manager: ProcessManager, rings: RingResource, iouring: IoUringManager
) -> None:
    """And refuse before anything is acquired."""
    limits = ResourceLimits(by_kind={"rings": {"max_count": 2, "max_bytes": 1 << 20}})  # type: ignore[dict-item]  # as from a file
    process = manager.create_process("limited", limits=limits)
    ring = rings.zerocopy.create_ring(process.pid)
    with pytest.raises(ResourceLimitExceeded, match="bytes"):
        rings.zerocopy.create_ring(process.pid, block_size=1 << 20)
    iouring.create_ring(process.pid, 2)
    before = KernelView.take()

    with pytest.raises(ResourceLimitExceeded, match="at most 2 resources"):
        iouring.create_ring(process.pid, 2)
    with pytest.raises(ResourceLimitExceeded, match="at most 2 resources"):
        rings.zerocopy.create_ring(process.pid)
    with pytest.raises(ResourceLimitExceeded, match="at most 2 resources"):
        rings.zerocopy.attach(process.pid, ring.filenos())
    assert before.changes() == []


def test_adoption(manager: ProcessManager, rings: RingResource) -> None:
    """A ring made by a standalone manager can be owned here, by one process, while it is open."""
    a, b = manager.create_process("a"), manager.create_process("b")
    standalone = ZeroCopyIpc()
    ring = standalone.create_ring(1)
    manager.orchestrator.adopt(a.pid, ring)
    with pytest.raises(AlreadyOwnedError, match=f"process {a.pid}"):
        manager.orchestrator.adopt(b.pid, ring)
    with pytest.raises(NotOwnedError):
        rings.zerocopy.close(b.pid, ring)

    result = manager.terminate_process(a.pid)

    assert result.stats.by_type == {"rings": 1}
    assert ring.closed
    with pytest.raises(UnadoptableError, match="closed"):
        manager.orchestrator.adopt(b.pid, ring)


def test_other_things_are_not_adopted(manager: ProcessManager) -> None:
    """They are left to other kinds."""
    process = manager.create_process("other")

    with pytest.raises(UnadoptableError):
        manager.orchestrator.adopt(process.pid, object())


def test_nothing_to_free(manager: ProcessManager) -> None:
    """A process without rings has an empty account."""
    stats = manager.terminate_process(manager.create_process("idle").pid).stats

    assert stats.model_copy(update={"duration_seconds": 0}) == CleanupStats()


def test_a_second_cleanup_finds_nothing(rings: RingResource, zerocopy: ZeroCopyIpc) -> None:
    """Idempotent, also called directly."""
    resource = RingResource()
    resource.zerocopy.create_ring(7)

    assert resource.cleanup(7).resources_freed == 1
    assert resource.cleanup(7).resources_freed == 0
    assert not resource.has_resources(7)


def test_quiesce_stops_submissions_and_keeps_what_was_sent(
    manager: ProcessManager, rings: RingResource
) -> None:
    """Nobody can send any more, at neither end; both can receive what is there."""
    process = manager.create_process("quiet")
    ring = rings.zerocopy.create_ring(process.pid)
    peer = ZeroCopyIpc().attach(1, ring.filenos())
    with ring.sending() as block:
        block[:1] = b"1"
        ring.submit(1)
    reserved = ring.reserve()

    assert list(rings.quiesce(process.pid)) == []

    with pytest.raises(RingClosedError, match="is stopped"):
        ring.submit(1, reserved)
    with pytest.raises(RingClosedError, match="is stopped"):
        ring.reserve()
    with peer.receiving() as message:
        assert bytes(message) == b"1"
    with pytest.raises(RingClosedError):
        peer.receive(timeout=None)
    peer.close()


def test_a_leak_is_told_of(manager: ProcessManager) -> None:
    """A process that ends normally with a ring has leaked it; it is freed all the same."""
    with manager.process("leaky") as process:
        process_rings: RingResource = manager.orchestrator["rings"]
        process_rings.zerocopy.create_ring(process.pid, slots=3, block_size=5)

    result = process.result

    assert result is not None
    assert "ZeroCopyRing 3 x 5 bytes" in str(result.leaks[0])


def test_async_termination(
    manager: ProcessManager, rings: RingResource, iouring: IoUringManager
) -> None:
    """With threads asleep in both halves, from a running loop that is never held up."""

    async def main() -> None:
        process = manager.create_process("async")
        ring = rings.zerocopy.create_ring(process.pid)
        uring = iouring.create_ring(process.pid, 4)
        uring.timeout(1000)
        loop = asyncio.get_running_loop()
        waits: list[asyncio.Future[object]] = [
            loop.run_in_executor(None, lambda: ring.receive(timeout=None)),
            loop.run_in_executor(None, lambda: uring.reap(1)),
        ]
        async with asyncio.timeout(10):
            while not uring.in_flight:  # noqa: ASYNC110  a thread sets it, not a task
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            result = await manager.terminate_process_async(process.pid)
            ends = await asyncio.gather(*waits, return_exceptions=True)

        assert result.is_success
        assert result.stats.by_type == {"rings": 2}
        assert isinstance(ends[0], RingClosedError)

        await loop.shutdown_default_executor()

    asyncio.run(main())


def test_sync_termination_on_a_loops_own_thread(
    manager: ProcessManager, rings: RingResource
) -> None:
    """Works, without waiting for the loop."""

    async def main() -> None:
        process = manager.create_process("sync")
        rings.zerocopy.create_ring(process.pid)

        assert manager.terminate_process(process.pid).is_success

    asyncio.run(main())


def test_acquiring_races_termination(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """Late registration for a terminated pid leaked for ever: refused, or freed, every time."""
    for _ in range(60):
        process = manager.create_process("race")
        origin = zerocopy.create_ring(process.pid, slots=1, block_size=1)
        passed = [os.dup(fd) for fd in origin.filenos()]
        started = threading.Barrier(4)

        def create(pid: int = process.pid, started: threading.Barrier = started) -> None:
            started.wait()
            while True:
                zerocopy.create_ring(pid, slots=1, block_size=1)

        def attach(
            pid: int = process.pid,
            started: threading.Barrier = started,
            passed: Sequence[int] = passed,
        ) -> None:
            started.wait()
            zerocopy.attach(pid, passed)
            while True:
                zerocopy.create_ring(pid, slots=1, block_size=1).close()

        workers = [in_thread(target) for target in (create, create, attach)]
        started.wait()
        result = manager.terminate_process(process.pid)
        for thread, outcome in workers:
            thread.join(5)

            assert not thread.is_alive()
            assert isinstance(outcome[0], ProcessTerminatedError), outcome
        for fd in passed:
            os.close(fd)
        assert result.is_success, result.errors
        assert not manager.orchestrator.has_resources(process.pid)
        assert origin.closed


def test_using_races_termination(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """Sender and receiver at full speed while both owners end: errors, never a crash."""
    for _ in range(50):
        owner, user = manager.create_process("owner"), manager.create_process("user")
        ring = zerocopy.create_ring(owner.pid, slots=2, block_size=32)
        peer = zerocopy.attach(user.pid, ring.filenos())
        started = threading.Barrier(4)

        def send(ring: ZeroCopyRing = ring, started: threading.Barrier = started) -> None:
            started.wait()
            while True:
                with ring.sending(timeout=5) as block:
                    block[:4] = b"data"
                    ring.submit(4)

        def receive(ring: ZeroCopyRing = peer, started: threading.Barrier = started) -> None:
            started.wait()
            while True:
                with ring.receiving(timeout=5) as message:
                    assert bytes(message) == b"data"

        def terminate(pid: int, started: threading.Barrier = started) -> object:
            started.wait()
            return manager.terminate_process(pid)

        workers = [in_thread(send), in_thread(receive)]
        enders = [in_thread(lambda pid=user.pid: terminate(pid))]  # type: ignore[misc]  # a default binds it
        result = terminate(owner.pid)
        for thread, _ in (*workers, *enders):
            thread.join(10)

            assert not thread.is_alive()
        for _, outcome in workers:
            # Mid-message, a view may be revoked under its user: ValueError, from memoryview.
            assert isinstance(outcome[0], (RingClosedError, ValueError)), outcome
        assert result.is_success  # type: ignore[attr-defined]  # a CleanupResult


def test_two_cleanups_at_once_free_each_ring_once(
    manager: ProcessManager, rings: RingResource
) -> None:
    """Popped before it is released: the sum of both accounts is what there was."""
    for _ in range(50):
        resource = RingResource()
        for _ in range(4):
            resource.zerocopy.create_ring(7, slots=1, block_size=1)
        cleaners = [in_thread(lambda resource=resource: resource.cleanup(7)) for _ in range(2)]  # type: ignore[misc]  # a default binds it
        for thread, _ in cleaners:
            thread.join(5)
        parts = [outcome[0] for _, outcome in cleaners]

        assert sum(part.resources_freed for part in parts) == 4  # type: ignore[attr-defined]  # CleanupStats
        assert not any(part.errors_encountered for part in parts)  # type: ignore[attr-defined]  # CleanupStats


def test_uring_creation_races_termination(manager: ProcessManager, iouring: IoUringManager) -> None:
    """Refused, or freed, every time."""
    for _ in range(30):
        process = manager.create_process("race")
        started = threading.Barrier(2)

        def create(pid: int = process.pid, started: threading.Barrier = started) -> IoUring:
            started.wait()
            while True:
                iouring.create_ring(pid, 1)

        thread, outcome = in_thread(create)
        started.wait()
        result = manager.terminate_process(process.pid)
        thread.join(5)

        assert isinstance(outcome[0], ProcessTerminatedError), outcome
        assert result.is_success
        assert not manager.orchestrator.has_resources(process.pid)
