"""Adopting maps made elsewhere: `mmap.mmap` objects and numpy memmaps."""

from __future__ import annotations

import gc
import mmap
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from mmap_kernel import break_sync, dirty_bytes, is_mapped

from probate import (
    AlreadyOwnedError,
    BusyResourceError,
    Outcome,
    ResourceLimitExceeded,
    ResourceLimits,
    UnadoptableError,
)
from probate.models import KindLimits
from probate_mmap import region

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import ProcessManager
    from probate_mmap import MmapManager

PAGE = mmap.PAGESIZE

pytestmark = pytest.mark.usefixtures("nothing_remains")


def memmap(path: Path, mode: Any = "r+", offset: int = 0) -> np.memmap[Any, np.dtype[np.uint8]]:
    return np.memmap(path, dtype=np.uint8, mode=mode, offset=offset)


def descriptions(manager: ProcessManager, pid: int) -> list[str]:
    return [info.description for info in manager.orchestrator.usage(pid)["mmap"].resources]


def test_an_adopted_map_is_the_owners_to_release(manager: ProcessManager, path: Path) -> None:
    """A map made elsewhere is synced and unmapped as if made here, descriptor and all."""
    process = manager.create_process("adopter")
    with path.open("r+b") as file:
        m = mmap.mmap(file.fileno(), 0)
    process.adopt(m)
    m[:2] = b"hi"
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert (result.stats.resources_freed, result.stats.bytes_freed) == (1, 3 * PAGE)
    assert m.closed
    assert path.read_bytes()[:2] == b"hi"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "shared map of {path}, {length} bytes"),
        ({"access": mmap.ACCESS_WRITE}, "shared map of {path}, {length} bytes"),
        ({"access": mmap.ACCESS_COPY}, "private map of {path}, {length} bytes"),
        ({"access": mmap.ACCESS_READ}, "shared read-only map of {path}, {length} bytes"),
        (
            {"flags": mmap.MAP_PRIVATE, "prot": mmap.PROT_READ},
            "private read-only map of {path}, {length} bytes",
        ),
        ({"offset": PAGE, "length": 9}, f"shared map of {{path}}, 9 bytes from offset {PAGE}"),
    ],
)
def test_the_kernel_says_what_an_adopted_map_is(
    manager: ProcessManager, path: Path, arguments: dict[str, Any], words: str
) -> None:
    """An `mmap.mmap` shows neither path nor sharing; /proc does."""
    process = manager.create_process("adopter")
    with path.open("r+b") as file:
        process.adopt(mmap.mmap(file.fileno(), **{"length": 0, **arguments}))

    assert descriptions(manager, process.pid) == [words.format(path=path, length=3 * PAGE)]


@pytest.mark.parametrize("flags", [mmap.MAP_SHARED, mmap.MAP_PRIVATE])
def test_an_adopted_anonymous_map_is_known_as_one(
    manager: ProcessManager, maps: MmapManager, flags: int
) -> None:
    """There is no file to sync to, and none is named."""
    process = manager.create_process("adopter")
    process.adopt(mmap.mmap(-1, PAGE, flags=flags))
    sharing = "shared" if flags == mmap.MAP_SHARED else "private"

    assert descriptions(manager, process.pid) == [f"{sharing} anonymous map, {PAGE} bytes"]
    assert maps.quiesce(process.pid) == []


def test_where_proc_does_not_tell_a_map_is_synced_all_the_same(
    manager: ProcessManager, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync too many does no harm; its failure is told without a path."""
    monkeypatch.setattr(region, "_MAPS", "/no/such/proc")
    process = manager.create_process("chrooted")
    with path.open("r+b") as file:
        good, bad = (mmap.mmap(file.fileno(), 0) for _ in range(2))
    process.adopt(good)
    process.adopt(bad)
    break_sync(bad)

    assert f"shared map of an unknown file, {3 * PAGE} bytes" in descriptions(manager, process.pid)

    result = manager.terminate_process(process.pid)

    assert result.stats.resources_freed == 1
    assert f"{3 * PAGE} bytes" in result.errors[0].message


def test_a_map_that_was_resized_after_adoption_is_synced_where_it_is(
    manager: ProcessManager, maps: MmapManager, disk_path: Path
) -> None:
    """mremap(2) may move it; the whole of it is synced, wherever it lies."""
    process = manager.create_process("resizer")
    with disk_path.open("r+b") as file:
        m = mmap.mmap(file.fileno(), 0)
    process.adopt(m)
    m.resize(64 << 20)
    m[-1] = 7
    maps.sync(process.pid, m)

    assert dirty_bytes(disk_path) == 0
    assert manager.terminate_process(process.pid).is_success


def test_each_map_has_one_owner(manager: ProcessManager, maps: MmapManager, path: Path) -> None:
    """A map of ours, a memmap and its views cannot be adopted a second time."""
    a, b = manager.create_process("a"), manager.create_process("b")
    array = memmap(path)
    a.adopt(array)

    for taken in (maps.map_anonymous(a.pid, PAGE), array, array[5:9], array.base):
        with pytest.raises(AlreadyOwnedError, match=f"process {a.pid}"):
            b.adopt(taken)
    del array, taken
    # The tracebacks above refer to this frame, and so to what was in it.
    gc.collect()


@pytest.mark.parametrize("thing", [b"bytes", 7, None, memoryview(b"view"), np.zeros(3)])
def test_what_is_no_map_is_left_to_other_kinds(maps: MmapManager, thing: object) -> None:
    """None says: not of this kind."""
    assert maps.adopt(1, thing) is None


def test_a_closed_map_is_not_adopted(manager: ProcessManager) -> None:
    """There is nothing to release; the cause tells why."""
    process = manager.create_process("adopter")
    m = mmap.mmap(-1, PAGE)
    m.close()

    with pytest.raises(UnadoptableError) as caught:
        process.adopt(m)

    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert "a closed map cannot be adopted" in str(caught.value.__cause__.exceptions[0])


def test_adoption_counts_against_the_limit(manager: ProcessManager) -> None:
    """A refused map stays the caller's, open."""
    limits = ResourceLimits(by_kind={"mmap": KindLimits(max_bytes=PAGE)})
    process = manager.create_process("limited", limits=limits)
    with mmap.mmap(-1, PAGE + 1) as m:
        with pytest.raises(ResourceLimitExceeded):
            process.adopt(m)

        assert not m.closed


# -- numpy memmaps ---------------------------------------------------------------


@pytest.mark.parametrize("view", [False, True])
def test_a_memmap_is_synced_and_unmapped_when_its_arrays_are_gone(
    manager: ProcessManager, path: Path, view: bool
) -> None:
    """Only the map under the array is kept, so that dropping the array makes it free."""
    process = manager.create_process("numpy")
    array = memmap(path, offset=5)
    process.adopt(array[10:20] if view else array)
    array[:2] = 7

    assert manager.orchestrator.usage(process.pid)["mmap"].nbytes == 3 * PAGE

    del array
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.bytes_freed == 3 * PAGE
    assert path.read_bytes()[5:7] == b"\7\7"
    assert not is_mapped(path)


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array,
        lambda array: array[2:][1:],
        lambda array: np.asarray(array)[1:].reshape(-1, 1).T,
        lambda array: np.lib.stride_tricks.as_strided(array, (9,)),
        memoryview,
    ],
    ids=["array", "slice", "ndarray", "strided", "memoryview"],
)
def test_a_memmap_in_use_is_busy_and_never_pulled_from_under_its_array(
    manager: ProcessManager, path: Path, view: Callable[[Any], Any]
) -> None:
    """An array that somebody still holds can be read, and is no SIGSEGV; then it is freed."""
    process = manager.create_process("numpy")
    array = memmap(path)
    process.adopt(array)
    array = view(array)
    (error,) = manager.terminate_process(process.pid).errors

    assert error.outcome is Outcome.BUSY
    assert str(path) in error.resource
    assert set(bytes(array)) == {ord(".")}

    del array
    result = manager.orchestrator.cleanup_process(process.pid)

    assert (result.is_success, result.stats.resources_freed) == (True, 1)
    assert not is_mapped(path)


def test_sync_and_unmap_take_the_memmap_itself(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """To sync, the array is as good as its map; to unmap, the map, once the array is gone."""
    process = manager.create_process("numpy")
    array = memmap(path)
    process.adopt(array)
    maps.sync(process.pid, array)

    with pytest.raises(BusyResourceError, match="drop the arrays"):
        maps.unmap(process.pid, array)

    native = array.base
    del array
    gc.collect()
    maps.unmap(process.pid, native)

    assert not manager.orchestrator.has_resources(process.pid)
    assert not is_mapped(path)


@pytest.mark.parametrize(
    ("mode", "words"), [("r", "shared read-only"), ("c", "private"), ("r+", "shared")]
)
def test_the_mode_of_a_memmap_shows(
    manager: ProcessManager, path: Path, mode: str, words: str
) -> None:
    """Mode c is copy-on-write: private, and never synced."""
    process = manager.create_process("numpy")
    process.adopt(memmap(path, mode))

    assert descriptions(manager, process.pid) == [f"{words} map of {path}, {3 * PAGE} bytes"]


def test_a_memmap_whose_map_was_closed_is_not_adopted(manager: ProcessManager, path: Path) -> None:
    """The refusal does not look at the array, which has nothing under it."""
    array = memmap(path)
    native: Any = array.base
    native.close()
    with pytest.raises(ValueError, match="closed map cannot be adopted"):
        manager.orchestrator["mmap"].adopt(1, array)


def test_a_failed_sync_of_a_memmap_is_an_error(manager: ProcessManager, path: Path) -> None:
    """The array's data did not reach the disk: FAILED, with the path."""
    process = manager.create_process("numpy")
    array = memmap(path)
    process.adopt(array)
    native: Any = array.base
    break_sync(native)
    del array
    (error,) = manager.terminate_process(process.pid).errors

    assert error.outcome is Outcome.FAILED
    assert str(path) in error.message


def test_an_array_that_only_looks_like_a_memmap_is_not_adopted(maps: MmapManager) -> None:
    """A memmap class without a map under it is no map."""
    assert maps.adopt(1, np.zeros(3).view(np.memmap)) is None


def test_numpy_is_optional(
    manager: ProcessManager, maps: MmapManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without numpy all else works; and nobody gets numpy imported for nothing."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    process = manager.create_process("lean")
    process.adopt(mmap.mmap(-1, PAGE))
    code = "import sys, probate_mmap; probate_mmap.MappingResource(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert maps.adopt(process.pid, [1, 2, 3]) is None
    assert done.stdout == "False\n"
