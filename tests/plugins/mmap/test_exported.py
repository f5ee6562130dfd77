"""Unmapping, and what stands against it: exported buffers, other owners, maps gone already."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from after_kind import AfterResource
from mmap_kernel import break_sync, descriptors_of, is_mapped

from probate import (
    BusyResourceError,
    NotOwnedError,
    Outcome,
    ProcessManager,
    ResourceOrchestrator,
)

if TYPE_CHECKING:
    from probate_mmap import MmapManager

PAGE = mmap.PAGESIZE

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_exported_buffers_are_retried_after_the_other_kinds(
    orchestrator: ResourceOrchestrator, path: Path
) -> None:
    """The map is BUSY at first; when the kind that held the view has let go, it is unmapped."""
    views: AfterResource[memoryview] = AfterResource("views", memoryview.release)
    orchestrator.register(views, "views")
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_grace(0).build() as manager:
        process = manager.create_process("viewer")
        m = orchestrator["mmap"].manager.map_file(process.pid, path)
        views.table.add(process.pid, memoryview(m)[10:20])
        result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.by_type == {"mmap": 1, "views": 1}
    assert result.stats.bytes_freed == 3 * PAGE
    assert not is_mapped(path)


def test_a_buffer_that_stays_exported_is_reported_and_no_descriptor_leaks(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """BufferError: exported pointers; the fd leaked too (cpython#115635).

    The descriptor is closed anyway; the map is BUSY, retried, then reported; it can be freed
    as soon as the buffer is gone.
    """
    process = manager.create_process("holder")
    m = maps.map_file(process.pid, path)
    view = memoryview(m)
    result = manager.terminate_process(process.pid)

    assert [(e.kind, e.outcome) for e in result.errors] == [("mmap", Outcome.BUSY)]
    assert str(path) in result.errors[0].resource
    assert "release the memoryviews" in result.errors[0].message
    assert (result.stats.resources_freed, result.stats.bytes_freed) == (0, 0)
    assert descriptors_of(path) == []
    assert bytes(view[:3]) == b"..."
    assert manager.orchestrator.has_resources(process.pid)

    view.release()
    later = manager.orchestrator.cleanup_process(process.pid)

    assert later.is_success
    assert later.stats.bytes_freed == 3 * PAGE
    assert not is_mapped(path)


def test_closing_a_busy_map_later_closes_nobody_elses_descriptor(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """A number closed behind a map's back would be closed twice, and be another's by then."""
    process = manager.create_process("holder")
    view = memoryview(maps.map_file(process.pid, path))
    manager.terminate_process(process.pid)
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    view.release()
    manager.orchestrator.cleanup_process(process.pid)
    still_open = [fd for fd in others if os.fstat(fd).st_rdev == Path("/dev/null").stat().st_rdev]
    for fd in others:
        os.close(fd)

    assert still_open == others


def test_an_exported_buffer_does_not_keep_the_others(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """One BUSY map never keeps the next from being tried."""
    process = manager.create_process("mixed")
    older, busy, newer = (maps.map_file(process.pid, path) for _ in range(3))
    view = memoryview(busy)
    result = manager.terminate_process(process.pid)

    assert (result.stats.resources_freed, result.stats.errors_encountered) == (2, 1)
    assert (older.closed, busy.closed, newer.closed) == (True, False, True)

    view.release()


def test_a_temporary_map_loses_its_file_and_descriptor_even_while_exported(
    manager: ProcessManager, maps: MmapManager, tmp_path: Path
) -> None:
    """An exported buffer must not keep a file on disk, nor a descriptor."""
    process = manager.create_process("temporary")
    m = maps.map_temporary(process.pid, PAGE, directory=tmp_path)
    view = memoryview(m)
    result = manager.terminate_process(process.pid)

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert list(tmp_path.iterdir()) == []
    assert descriptors_of(m.path or "") == []

    view.release()

    assert manager.orchestrator.cleanup_process(process.pid).stats.bytes_freed == PAGE


def test_a_failed_sync_of_a_busy_map_is_told_and_kept_for_the_end(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """While it is BUSY the account tells of both; unmapped, it is FAILED and not freed."""
    process = manager.create_process("unlucky")
    m = maps.map_file(process.pid, path)
    break_sync(m)
    view = memoryview(m)
    (busy,) = manager.terminate_process(process.pid).errors

    assert busy.outcome is Outcome.BUSY
    assert "its sync failed, too" in busy.message

    view.release()
    result = manager.orchestrator.cleanup_process(process.pid)

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert result.stats.resources_freed == 0
    assert not is_mapped(path)


# -- unmap -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["unmap", "close"])
def test_unmap_ends_the_ownership_and_is_idempotent(
    manager: ProcessManager, maps: MmapManager, path: Path, method: str
) -> None:
    """Unmapping twice is unmapping once, also by the name that it has in every manager."""
    process = manager.create_process("tidy")
    m = maps.map_file(process.pid, path)
    getattr(maps, method)(process.pid, m)
    getattr(maps, method)(process.pid, m)

    assert m.closed
    assert not is_mapped(path)
    assert not manager.orchestrator.has_resources(process.pid)


def test_unmap_refuses_while_a_buffer_is_exported(
    manager: ProcessManager, maps: MmapManager, tmp_path: Path
) -> None:
    """A clear error, and the map stays mapped and owned, with its file."""
    process = manager.create_process("early")
    m = maps.map_temporary(process.pid, PAGE, directory=tmp_path)

    with memoryview(m), pytest.raises(BusyResourceError, match="release the memoryviews"):
        maps.unmap(process.pid, m)

    assert manager.orchestrator.usage(process.pid)["mmap"].nbytes == PAGE
    assert len(list(tmp_path.iterdir())) == 1

    maps.unmap(process.pid, m)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["sync", "unmap"])
def test_one_owner_cannot_touch_anothers_map(
    manager: ProcessManager, maps: MmapManager, path: Path, method: str
) -> None:
    """Release is owner-checked, and so is sync."""
    a, b = manager.create_process("a"), manager.create_process("b")
    m = maps.map_file(a.pid, path)

    with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
        getattr(maps, method)(b.pid, m)

    assert manager.terminate_process(b.pid).stats.resources_freed == 0
    assert not m.closed


@pytest.mark.parametrize("method", ["sync", "unmap"])
def test_a_map_that_nobody_owns_is_left_alone(
    manager: ProcessManager, maps: MmapManager, method: str
) -> None:
    """A map made elsewhere has to be adopted first."""
    process = manager.create_process("stranger")
    with mmap.mmap(-1, PAGE) as m, pytest.raises(NotOwnedError, match="nobody here does"):
        getattr(maps, method)(process.pid, m)


def test_a_map_closed_directly_is_already_gone(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """The native object may be closed by anybody; cleanup neither counts nor complains."""
    process = manager.create_process("direct")
    maps.map_file(process.pid, path).close()
    maps.map_anonymous(process.pid, PAGE).close()
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.resources_freed == 0


def test_the_size_of_a_closed_map_is_an_error(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """As for any `mmap.mmap`."""
    m = maps.map_file(manager.create_process("closed").pid, path)
    m.close()

    with pytest.raises(ValueError, match="closed"):
        m.size()
