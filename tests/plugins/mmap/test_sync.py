"""Syncing: what reaches the disk and when, and what becomes of a sync that fails or hangs."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from mmap_kernel import break_sync, dirty_bytes, is_mapped

from probate import Outcome, ResourceOrchestrator
from probate_mmap import MappingResource, MmapManager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from probate import ProcessManager

PAGE = mmap.PAGESIZE

#: Socket options of packet(7), which the socket module does not name.
SOL_PACKET, PACKET_RX_RING = 263, 5

pytestmark = pytest.mark.usefixtures("nothing_remains")


class StuckMap(mmap.mmap):
    """A map on a disk that does not answer until `answer` is set."""

    answer: threading.Event
    asked: threading.Event

    def flush(self, *args: Any) -> None:
        self.asked.set()
        assert self.answer.wait(30)


class SlowMap(mmap.mmap):
    """A map on a disk that takes its time."""

    def flush(self, *args: Any) -> None:
        time.sleep(0.1)


class BrokenMap(mmap.mmap):
    """A map whose first sync fails, as the kernel tells of a failed write: once."""

    count = 0

    def flush(self, *args: Any) -> None:
        self.count += 1
        if self.count == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def map_of(cls: type[mmap.mmap], path: Path) -> Any:
    with path.open("r+b") as file:
        return cls(file.fileno(), 0)


@pytest.fixture
def stuck(path: Path) -> Iterator[StuckMap]:
    m: StuckMap = map_of(StuckMap, path)
    m.answer, m.asked = threading.Event(), threading.Event()
    yield m
    m.answer.set()


def test_sync_writes_what_has_changed_to_disk(
    manager: ProcessManager, maps: MmapManager, disk_path: Path
) -> None:
    """After `sync` the kernel has no dirty page of the map left."""
    process = manager.create_process("writer")
    m = maps.map_file(process.pid, disk_path)
    m[:2] = b"hi"

    assert dirty_bytes(disk_path) >= PAGE

    maps.sync(process.pid, m)

    assert dirty_bytes(disk_path) == 0


def test_quiesce_syncs_shared_writable_maps(
    manager: ProcessManager, maps: MmapManager, disk_path: Path
) -> None:
    """When the futures are done the data is on disk, and the map is still there."""
    process = manager.create_process("writer")
    m = maps.map_file(process.pid, disk_path)
    m[:2] = b"hi"
    futures = maps.quiesce(process.pid)

    assert [future.result(10) for future in futures] == [None]
    assert dirty_bytes(disk_path) == 0
    assert m[:2] == b"hi"


def test_only_what_can_reach_a_file_is_synced(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """Private, read-only, anonymous and temporary maps have nothing to sync at their end."""
    pid = manager.create_process("others").pid
    others = [
        maps.map_anonymous(pid, PAGE),
        maps.map_anonymous(pid, PAGE, shared=False),
        maps.map_file(pid, path, shared=False),
        maps.map_file(pid, path, writable=False),
        maps.map_temporary(pid, PAGE),
    ]

    assert maps.quiesce(pid) == []
    for m in others:
        maps.sync(pid, m)


def test_what_is_written_after_quiesce_is_synced_too(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """Users may write until the end of the grace: each sync asked for later starts later."""
    count = 0

    class CountingMap(mmap.mmap):
        def flush(self, *args: Any) -> None:
            nonlocal count
            count += 1
            super().flush()

    process = manager.create_process("late")
    process.adopt(map_of(CountingMap, path))
    manager.terminate_process(process.pid, grace=5)

    assert count == 2


# -- failures --------------------------------------------------------------------


def test_a_failed_sync_is_an_error_with_path_and_bytes(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """Every adapter reported 0 errors; msync failure logged, map counted as freed.

    Here a failed sync is an error with path and bytes; the map is unmapped, and not counted.
    """
    process = manager.create_process("unlucky")
    m = maps.map_file(process.pid, path)
    other = maps.map_anonymous(process.pid, PAGE)
    break_sync(m)
    result = manager.terminate_process(process.pid)
    (error,) = result.errors

    assert (error.kind, error.outcome) == ("mmap", Outcome.FAILED)
    assert str(path) in error.message
    assert f"{3 * PAGE} bytes" in error.message
    assert (result.stats.resources_freed, result.stats.bytes_freed) == (1, PAGE)
    assert (m.closed, other.closed, is_mapped(path)) == (True, True, False)
    assert not manager.orchestrator.has_resources(process.pid)


def test_sync_raises_with_path_and_bytes(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """To the caller it is an OSError as the kernel gave it, and tells what is lost."""
    process = manager.create_process("unlucky")
    m = maps.map_file(process.pid, path)
    break_sync(m)

    with pytest.raises(OSError, match=f"{3 * PAGE} bytes") as caught:
        maps.sync(process.pid, m)

    assert (caught.value.errno, caught.value.filename) == (errno.ENOMEM, str(path))


def test_unmap_keeps_a_map_that_cannot_be_synced(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """Its data may still be saved elsewhere; `sync=False` is the way out."""
    process = manager.create_process("unlucky")
    m = maps.map_file(process.pid, path)
    m[:4] = b"data"
    break_sync(m)

    with pytest.raises(OSError, match="not be on disk"):
        maps.unmap(process.pid, m)

    assert m[:4] == b"data"
    assert manager.orchestrator.has_resources(process.pid)

    maps.unmap(process.pid, m, sync=False)

    assert m.closed
    assert not manager.orchestrator.has_resources(process.pid)


def test_a_sync_that_failed_in_quiesce_is_an_error_though_a_later_one_went_well(
    manager: ProcessManager, path: Path
) -> None:
    """The kernel tells of a failed write once; the data is lost all the same (fsync(2))."""
    process = manager.create_process("unlucky")
    m = map_of(BrokenMap, path)
    process.adopt(m)
    result = manager.terminate_process(process.pid, grace=5)

    assert m.count == 2
    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "Input/output error" in result.errors[0].message
    assert str(path) in result.errors[0].message


def test_a_failure_in_quiesce_is_not_lost_when_the_user_unmaps(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """Whoever tidies up during the grace learns of it, by unmap or by the account."""
    process = manager.create_process("tidy")
    m = map_of(BrokenMap, path)
    process.adopt(m)
    (future,) = maps.quiesce(process.pid)

    assert isinstance(future.exception(10), OSError)
    with pytest.raises(OSError, match="Input/output error"):
        maps.unmap(process.pid, m)

    m.close()
    (error,) = manager.terminate_process(process.pid).errors

    assert error.outcome is Outcome.FAILED


def test_memory_without_a_disk_needs_no_sync(manager: ProcessManager) -> None:
    """EINVAL for a good range says that there is no sync: a packet ring is freed, no error."""
    try:
        ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        pytest.skip("packet sockets need CAP_NET_RAW")
    process = manager.create_process("sniffer")
    with ring:
        ring.setsockopt(SOL_PACKET, PACKET_RX_RING, struct.pack("IIII", PAGE, 2, PAGE // 2, 4))
        process.adopt(mmap.mmap(ring.fileno(), 2 * PAGE))
        result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.bytes_freed == 2 * PAGE


def test_a_closed_map_cannot_be_synced(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """A clear error, as `mmap.flush` gives."""
    process = manager.create_process("closed")
    m = maps.map_file(process.pid, path)
    m.close()

    with pytest.raises(ValueError, match="closed"):
        maps.sync(process.pid, m)


# -- a disk that hangs -----------------------------------------------------------


def test_quiesce_does_not_wait_for_a_disk(
    manager: ProcessManager, maps: MmapManager, stuck: StuckMap
) -> None:
    """It returns at once, with a future to wait for."""
    process = manager.create_process("stuck")
    process.adopt(stuck)
    (future,) = maps.quiesce(process.pid)

    assert stuck.asked.wait(10)
    assert not future.done()

    stuck.answer.set()
    future.result(10)

    assert manager.terminate_process(process.pid).is_success


def test_a_sync_that_hangs_is_reported_and_keeps_no_other_map(stuck: StuckMap) -> None:
    """It is a TIMEOUT, still owned; maps of other devices, and those without sync, are freed."""
    resource = MappingResource(MmapManager(sync_timeout=0.2))
    orchestrator = ResourceOrchestrator().register(resource, "mmap")
    memory = os.memfd_create("other device")
    os.truncate(memory, PAGE)
    elsewhere = mmap.mmap(memory, PAGE)
    os.close(memory)
    resource.manager.map_anonymous(7, PAGE)
    orchestrator.adopt(7, stuck)
    orchestrator.adopt(7, elsewhere)
    result = orchestrator.cleanup_process(7, grace=0)

    assert (result.stats.resources_freed, result.stats.bytes_freed) == (2, 2 * PAGE)
    assert [error.outcome for error in result.errors] == [Outcome.TIMEOUT]
    assert "stood still for 0.2 seconds" in result.errors[0].message
    assert not stuck.closed

    stuck.answer.set()
    later = orchestrator.cleanup_process(7)

    assert later.is_success
    assert later.stats.bytes_freed == 3 * PAGE


def test_a_slow_disk_gets_its_time_as_long_as_it_moves(path: Path) -> None:
    """The timeout is for standing still, however many maps there are to sync."""
    resource = MappingResource(MmapManager(sync_timeout=0.4))
    orchestrator = ResourceOrchestrator().register(resource, "mmap")
    for _ in range(6):
        orchestrator.adopt(7, map_of(SlowMap, path))
    stats = resource.cleanup(7)

    assert (stats.resources_freed, stats.errors_encountered) == (6, 0)
    assert stats.duration_seconds > 0.5


def test_a_direct_close_during_a_sync_is_no_error(
    manager: ProcessManager, maps: MmapManager, stuck: StuckMap
) -> None:
    """A background sync exports no buffer, so that a user's own `close` never fails of it."""
    process = manager.create_process("tidy")
    process.adopt(stuck)
    (future,) = maps.quiesce(process.pid)

    assert stuck.asked.wait(10)

    stuck.close()
    stuck.answer.set()
    future.result(10)
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.resources_freed == 0


def test_without_a_thread_to_be_had_cleanup_syncs_by_itself(
    manager: ProcessManager, maps: MmapManager, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the interpreter's end, or at a limit, no thread can be started."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    process = manager.create_process("late")
    broken = map_of(BrokenMap, path)
    process.adopt(broken)
    maps.map_file(process.pid, path)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)

        assert maps.quiesce(process.pid) == []

        stats = maps.cleanup(process.pid)

    assert (stats.resources_freed, stats.errors_encountered) == (1, 1)
    assert broken.count == 1


def test_the_thread_of_syncs_ends_when_all_is_synced(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """Whoever takes the map out meanwhile: no cleanup comes to end the thread then."""
    for _ in range(20):
        process = manager.create_process("raced")
        m = maps.map_file(process.pid, path)
        assert len(maps.quiesce(process.pid)) == 1
        maps.unmap(process.pid, m)

        assert process.terminate().is_success
