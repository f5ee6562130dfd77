"""Terminations: sync and async, raced, repeated, forked."""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import threading
from typing import TYPE_CHECKING

import pytest
from mmap_kernel import is_mapped
from threads import in_thread

from probate import CleanupStats, NotOwnedError, ProcessTerminatedError, ResourceOrchestrator
from probate.models import NOTHING
from probate_mmap import MappingResource, MmapManager

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import ProcessManager

PAGE = mmap.PAGESIZE

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_the_kind_stands_first_of_the_first_five() -> None:
    """Priority 50, by entry point as by hand; the manager is the one that was given."""
    manager = MmapManager()
    resource = MappingResource(manager)
    discovered = ResourceOrchestrator().discover(only=["mmap"])

    assert resource.ordering().priority == 50
    assert resource.manager is manager
    assert isinstance(discovered["mmap"], MappingResource)
    assert isinstance(discovered["mmap"].manager, MmapManager)


def test_the_public_names_are_there() -> None:
    """What `__all__` names can be imported."""
    import probate_mmap

    assert sorted(probate_mmap.__all__) == probate_mmap.__all__
    assert all(hasattr(probate_mmap, name) for name in probate_mmap.__all__)


def test_everything_of_a_process_goes_newest_first(
    manager: ProcessManager, maps: MmapManager, path: Path, tmp_path: Path
) -> None:
    """One termination frees maps of all sorts, and counts each with its mapped bytes."""
    pid = manager.create_process("all").pid
    closed: list[str] = []

    class LoudMap(mmap.mmap):
        def close(self) -> None:
            closed.append(self.name)
            super().close()

        name = ""

    maps.map_anonymous(pid, PAGE)
    maps.map_file(pid, path)
    maps.map_file(pid, path, 100, shared=False)
    maps.map_temporary(pid, 200, directory=tmp_path)
    for name in ("older", "newer"):
        m = LoudMap(-1, PAGE)
        m.name = name
        manager.orchestrator.adopt(pid, m)
    result = manager.terminate_process(pid)

    assert result.is_success
    assert result.stats.by_type == {"mmap": 6}
    assert result.stats.bytes_freed == 6 * PAGE + 300
    assert closed == ["newer", "older"]


def test_an_async_termination_frees_too(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """`terminate_process_async`, from a running loop."""
    process = manager.create_process("async")
    m = maps.map_file(process.pid, path)
    m[:2] = b"hi"
    result = asyncio.run(manager.terminate_process_async(process.pid, grace=5))

    assert result.is_success
    assert result.stats.bytes_freed == 3 * PAGE
    assert not is_mapped(path)


def test_the_sync_form_works_on_a_loops_own_thread(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """There the grace is skipped; cleanup waits for the sync itself."""

    async def terminate() -> bool:
        process = manager.create_process("on the loop")
        maps.map_file(process.pid, path)[:2] = b"hi"
        return manager.terminate_process(process.pid, grace=5).is_success

    assert asyncio.run(terminate())
    assert not is_mapped(path)


def test_a_second_cleanup_finds_nothing(maps: MmapManager, path: Path) -> None:
    """Idempotent; and of a process without maps the account is empty."""
    resource = MappingResource()
    resource.manager.map_file(7, path)

    assert resource.has_resources(7)
    assert resource.cleanup(7).resources_freed == 1
    assert not resource.has_resources(7)
    assert resource.cleanup(7) == NOTHING
    assert resource.cleanup(8) == NOTHING
    assert list(resource.quiesce(8)) == []
    assert resource.usage(8).count == 0


def test_nothing_to_free(manager: ProcessManager) -> None:
    """A process without maps has an empty account."""
    stats = manager.terminate_process(manager.create_process("idle").pid).stats

    assert stats.model_copy(update={"duration_seconds": 0}) == CleanupStats()


def test_a_map_can_be_dropped_by_its_user(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """Ownership holds the map, so that what was written is synced though nobody refers to it."""
    process = manager.create_process("careless")
    maps.map_file(process.pid, path)[:2] = b"hi"
    gc.collect()

    assert is_mapped(path)
    assert manager.terminate_process(process.pid).stats.bytes_freed == 3 * PAGE


# -- races -----------------------------------------------------------------------


def test_maps_made_while_the_owner_dies_are_freed_or_refused(
    manager: ProcessManager, maps: MmapManager, path: Path, tmp_path: Path
) -> None:
    """Acquire races terminate, 60 times with 3 threads: nothing stays mapped, no file stays."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    makers: tuple[Callable[[int], object], ...] = (
        lambda pid: maps.map_file(pid, path),
        lambda pid: maps.map_temporary(pid, PAGE, directory=folder),
        lambda pid: maps.map_anonymous(pid, PAGE),
    )
    for _ in range(60):
        pid = manager.create_process("raced").pid
        started = threading.Barrier(len(makers) + 1)

        def make_many(
            maker: Callable[[int], object], pid: int = pid, barrier: threading.Barrier = started
        ) -> None:
            barrier.wait()
            for _ in range(50):
                maker(pid)

        running = [in_thread(lambda maker=maker: make_many(maker)) for maker in makers]  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        started.wait()
        result = manager.terminate_process(pid)
        for thread, outcome in running:
            thread.join()

            assert outcome[0] is None or isinstance(outcome[0], ProcessTerminatedError)
        assert result.errors == ()
        assert not manager.orchestrator.has_resources(pid)
        assert list(folder.iterdir()) == []
    assert not is_mapped(path)


def test_unmap_races_terminate(manager: ProcessManager, maps: MmapManager, path: Path) -> None:
    """Whoever is first unmaps, 100 times; all is unmapped, once, and the account is clean."""
    for _ in range(100):
        pid = manager.create_process("raced").pid
        owned = [maps.map_file(pid, path) for _ in range(3)]
        barrier = threading.Barrier(2)

        def unmap_all(
            pid: int = pid,
            owned: list[mmap.mmap] = owned,  # type: ignore[assignment]  # MemoryMap is one
            barrier: threading.Barrier = barrier,
        ) -> None:
            barrier.wait()
            for m in owned:
                maps.unmap(pid, m)

        thread, outcome = in_thread(unmap_all)
        barrier.wait()
        result = manager.terminate_process(pid)
        thread.join()

        assert outcome[0] is None or isinstance(outcome[0], ProcessTerminatedError)
        assert result.errors == ()
        assert all(m.closed for m in owned)
    assert not is_mapped(path)


def test_two_terminations_free_once(manager: ProcessManager, maps: MmapManager, path: Path) -> None:
    """Two threads terminate, 50 times: one account, the same to both."""
    for _ in range(50):
        pid = manager.create_process("twice").pid
        maps.map_file(pid, path)
        thread, outcome = in_thread(lambda pid=pid: manager.terminate_process(pid))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        result = manager.terminate_process(pid)
        thread.join()

        assert outcome == [result]
        assert result.stats.resources_freed == 1


# -- moving and forking ----------------------------------------------------------


def test_a_transferred_map_belongs_to_its_new_owner(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """Its old owner's end leaves it alone, its new owner's frees it."""
    a, b = manager.create_process("a"), manager.create_process("b")
    m = maps.map_file(a.pid, path)
    maps.table.transfer(a.pid, maps.table.find(a.pid, m), b.pid)

    with pytest.raises(NotOwnedError, match=f"process {b.pid} does"):
        maps.unmap(a.pid, m)

    assert manager.terminate_process(a.pid).stats.resources_freed == 0
    assert not m.closed
    assert manager.terminate_process(b.pid).stats.bytes_freed == 3 * PAGE


def test_a_forked_child_owns_nothing(
    manager: ProcessManager, maps: MmapManager, path: Path, tmp_path: Path
) -> None:
    """The child neither frees nor unlinks what is its parent's, and can have maps of its own."""
    process = manager.create_process("parent")
    m = maps.map_file(process.pid, path)
    temporary = maps.map_temporary(process.pid, PAGE, directory=tmp_path)
    for future in maps.quiesce(process.pid):
        future.result(10)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert not manager.orchestrator.has_resources(process.pid)
            assert maps.cleanup(process.pid) == NOTHING
            own = manager.create_process("child")
            own_map = maps.map_file(own.pid, path)
            own_map[:5] = b"child"
            result = manager.terminate_process(own.pid)
            assert (result.is_success, result.stats.resources_freed) == (True, 1)
            manager.close()
            assert not m.closed
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)

    assert status == 0
    assert temporary.size() == PAGE
    assert m[:5] == b"child"
    assert manager.terminate_process(process.pid).stats.resources_freed == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name]


def test_a_child_forked_during_a_sync_can_sync(manager: ProcessManager, path: Path) -> None:
    """The lane's thread and lock are the parent's; the child's lane starts afresh."""
    answer, asked = threading.Event(), threading.Event()

    class StuckMap(mmap.mmap):
        def flush(self, *args: object) -> None:
            asked.set()
            answer.wait(30)

    maps = manager.orchestrator["mmap"].manager
    process = manager.create_process("parent")
    with path.open("r+b") as file:
        process.adopt(StuckMap(file.fileno(), 0))
    (future,) = maps.quiesce(process.pid)

    assert asked.wait(10)

    child = os.fork()
    if child == 0:
        status = 1
        try:
            own = manager.create_process("child")
            maps.map_file(own.pid, path)
            result = manager.terminate_process(own.pid)
            status = 0 if result.is_success else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    answer.set()
    future.result(10)

    assert status == 0
    assert manager.terminate_process(process.pid).is_success
