"""Making maps for processes: what they map, what is refused, and what the kernel sees of it."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mmap_kernel import descriptors_of, is_mapped

from probate import (
    NoCurrentProcessError,
    ProcessNotFoundError,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
)
from probate.models import KindLimits
from probate.testing.witness import KernelView
from probate_mmap import libc

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_mmap import MmapManager

PAGE = mmap.PAGESIZE

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_an_anonymous_map_is_zeros_that_can_be_written(
    manager: ProcessManager, maps: MmapManager
) -> None:
    """`map_anonymous` gives a plain `mmap.mmap`; its owner's end unmaps it."""
    process = manager.create_process("scratch")
    m = maps.map_anonymous(process.pid, 5000)
    m[4990:] = b"0123456789"

    assert isinstance(m, mmap.mmap)
    assert (len(m), m.size(), m[0], m[4990:]) == (5000, 5000, 0, b"0123456789")

    result = manager.terminate_process(process.pid)

    assert (result.stats.by_type, result.stats.bytes_freed) == ({"mmap": 1}, 5000)
    assert m.closed


@pytest.mark.parametrize("shared", [True, False])
def test_a_forked_child_sees_a_shared_anonymous_map_only(
    manager: ProcessManager, maps: MmapManager, shared: bool
) -> None:
    """Shared means shared with children, as in mmap(2)."""
    m = maps.map_anonymous(manager.create_process("parent").pid, PAGE, shared=shared)
    child = os.fork()
    if child == 0:
        m[0] = 7
        os._exit(0)
    os.waitpid(child, 0)

    assert m[0] == (7 if shared else 0)


def test_a_shared_map_writes_to_its_file(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """By default the whole file, shared and writable; what is written is in the file."""
    process = manager.create_process("writer")
    m = maps.map_file(process.pid, path)
    m[PAGE : PAGE + 5] = b"hello"

    assert (len(m), m.size(), m.path) == (3 * PAGE, 3 * PAGE, str(path))
    assert path.read_bytes()[PAGE : PAGE + 5] == b"hello"

    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.bytes_freed == 3 * PAGE
    assert not is_mapped(path)


def test_a_private_map_never_writes_to_its_file(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """A private writable map needs no permission to write, and leaves the file as it was."""
    path.chmod(0o400)
    process = manager.create_process("private")
    m = maps.map_file(process.pid, path, shared=False)
    m[:5] = b"hello"
    manager.terminate_process(process.pid)

    assert set(path.read_bytes()) == {ord(".")}


@pytest.mark.parametrize("shared", [True, False])
def test_a_read_only_map_cannot_be_written(
    manager: ProcessManager, maps: MmapManager, path: Path, shared: bool
) -> None:
    """A TypeError, as with `mmap.ACCESS_READ`, and no SIGSEGV."""
    m = maps.map_file(manager.create_process("reader").pid, path, 0, shared, writable=False)

    assert m[:3] == b"..."
    with pytest.raises(TypeError):
        m[0] = 1


@pytest.mark.parametrize(("length", "mapped"), [(0, 2 * PAGE), (100, 100)])
def test_an_offset_leaves_out_the_beginning(
    manager: ProcessManager, maps: MmapManager, path: Path, length: int, mapped: int
) -> None:
    """From the offset on, up to the end of the file unless a length says otherwise."""
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(b"second page")
    process = manager.create_process("offset")
    m = maps.map_file(process.pid, path, length, offset=PAGE)

    assert (len(m), m.size(), m[:11]) == (mapped, 3 * PAGE, b"second page")
    assert manager.terminate_process(process.pid).stats.bytes_freed == mapped


def test_a_map_holds_no_descriptor(manager: ProcessManager, maps: MmapManager, path: Path) -> None:
    """Maps do not use up descriptors, and there is none that an exported buffer could keep."""
    process = manager.create_process("many")
    for shared in (True, False):
        maps.map_file(process.pid, path, shared=shared)

    assert is_mapped(path)
    assert descriptors_of(path) == []


def test_a_file_larger_than_memory_is_mapped(
    manager: ProcessManager, maps: MmapManager, tmp_path: Path
) -> None:
    """Reserving room for a map is not charged to memory."""
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 40)
    m = maps.map_file(manager.create_process("huge").pid, path)
    m[(1 << 40) - 1] = 7

    with path.open("rb") as file:
        file.seek((1 << 40) - 1)
        assert file.read() == b"\7"


def test_a_file_that_the_kernel_maps_for_nobody_is_refused(
    manager: ProcessManager, maps: MmapManager
) -> None:
    """ENODEV comes through as it is, with nothing owned and nothing mapped."""
    path = Path("/sys/kernel/uevent_seqnum")
    if not path.exists():
        pytest.skip("no sysfs")
    process = manager.create_process("sysfs")

    with pytest.raises(OSError, match="No such device") as caught:
        maps.map_file(process.pid, path, writable=False)

    assert caught.value.errno == errno.ENODEV
    assert not manager.orchestrator.has_resources(process.pid)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the interpreter does it by itself")
def test_what_fails_while_a_file_is_laid_over_its_reservation_is_refused(
    manager: ProcessManager,
    maps: MmapManager,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reservation, in which there may be a hole by then, is never unmapped."""

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    process = manager.create_process("no memory")
    length = 77 * PAGE
    os.truncate(path, length)
    before = _private_anonymous_bytes()
    monkeypatch.setattr(libc, "map_file_over", fail)

    with pytest.raises(OSError, match="Cannot allocate memory"):
        maps.map_file(process.pid, path)

    assert _private_anonymous_bytes() >= before + length
    assert not is_mapped(path)
    assert not manager.orchestrator.has_resources(process.pid)


def _private_anonymous_bytes() -> int:
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        if fields[1].endswith("p") and fields[4] == "0":
            start, end = (int(part, 16) for part in fields[0].split("-"))
            total += end - start
    return total


# -- arguments -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "arguments", "error", "words"),
    [
        ("map_anonymous", {"length": 0}, ValueError, "length of a map must be 1 to"),
        ("map_anonymous", {"length": -1}, ValueError, "got -1"),
        ("map_anonymous", {"length": 1 << 64}, ValueError, "length of a map"),
        ("map_anonymous", {"length": "4096"}, TypeError, "must be an int, got '4096'"),
        ("map_anonymous", {"length": True}, TypeError, "must be an int"),
        ("map_temporary", {"length": 0}, ValueError, "length of a map"),
        ("map_temporary", {"length": 1.5}, TypeError, "must be an int, got 1.5"),
        ("map_temporary", {"length": 1, "directory": 7}, TypeError, "path of a directory"),
        ("map_temporary", {"length": 1, "directory": "/no/such"}, FileNotFoundError, "/no/such"),
        ("map_file", {"path": 7}, TypeError, "path of a file, got 7"),
        ("map_file", {"path": "no such"}, FileNotFoundError, "no such"),
        ("map_file", {"path": "nul\0"}, ValueError, "null"),
        ("map_file", {"path": "."}, IsADirectoryError, "directory cannot be mapped"),
        ("map_file", {"path": "/dev/null"}, ValueError, "no regular file: map it with mmap.mmap"),
        ("map_file", {"path": "empty"}, ValueError, "empty is empty: there is nothing to map"),
        ("map_file", {"path": "empty", "length": 9}, ValueError, "nothing to map"),
        ("map_file", {"length": -1}, ValueError, "got -1"),
        ("map_file", {"length": "9"}, TypeError, "length of a map must be an int"),
        ("map_file", {"length": 3 * PAGE + 1}, ValueError, "reach beyond its end; os.truncate"),
        ("map_file", {"length": PAGE + 1, "offset": 2 * PAGE}, ValueError, "beyond its end"),
        ("map_file", {"offset": 7}, ValueError, "multiple of mmap.ALLOCATIONGRANULARITY"),
        ("map_file", {"offset": -PAGE}, ValueError, "multiple of mmap.ALLOCATIONGRANULARITY"),
        ("map_file", {"offset": 3 * PAGE}, ValueError, "cannot start at offset"),
        ("map_file", {"offset": None}, TypeError, "offset of a map must be an int"),
        ("sync", {"m": b"bytes"}, TypeError, "expected a memory map"),
        ("unmap", {"m": None}, TypeError, "expected a memory map"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_acquired(
    manager: ProcessManager,
    maps: MmapManager,
    path: Path,
    method: str,
    arguments: dict[str, Any],
    error: type[Exception],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clear error, and nothing owned."""
    monkeypatch.chdir(path.parent)
    (path.parent / "empty").touch()
    process = manager.create_process("bad")
    if method == "map_file":
        arguments = {"path": path, **arguments}

    with pytest.raises(error, match=words):
        getattr(maps, method)(process.pid, **arguments)

    assert not manager.orchestrator.has_resources(process.pid)


def test_a_timeout_of_nothing_is_refused() -> None:
    """A sync needs some time."""
    from probate_mmap import MmapManager

    with pytest.raises(ValueError, match="sync_timeout must be more than 0 seconds, got 0"):
        MmapManager(sync_timeout=0)


def test_a_file_that_shrinks_before_it_is_opened_is_refused(
    manager: ProcessManager,
    maps: MmapManager,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was found by name is looked at once more when it is open."""
    real_open = os.open

    def open_shrunk(*args: Any, **kwargs: Any) -> int:
        os.truncate(path, PAGE)
        return real_open(*args, **kwargs)

    monkeypatch.setattr(os, "open", open_shrunk)

    with pytest.raises(ValueError, match="beyond its end"):
        maps.map_file(manager.create_process("unlucky").pid, path)


@pytest.mark.parametrize("kind", [str, bytes, Path])
def test_a_path_is_a_path(
    manager: ProcessManager, maps: MmapManager, path: Path, kind: type
) -> None:
    """Strings, bytes and path objects all name a file."""
    given = os.fsencode(path) if kind is bytes else kind(path)

    assert maps.map_file(manager.create_process("any").pid, given).path == str(path)


def test_a_map_keeps_its_length(manager: ProcessManager, maps: MmapManager) -> None:
    """The bytes in the account are those that were mapped, so they cannot change underway."""
    m = maps.map_anonymous(manager.create_process("fixed").pid, PAGE)

    with pytest.raises(ValueError, match="keeps its length"):
        m.resize(2 * PAGE)


# -- owners ----------------------------------------------------------------------


def test_the_pid_may_be_left_out(manager: ProcessManager, maps: MmapManager, path: Path) -> None:
    """Within `with manager.process(...)`, maps are the current process's."""
    with pytest.raises(NoCurrentProcessError):
        maps.map_anonymous(PAGE)
    with manager.process("current") as process:
        maps.map_anonymous(PAGE, shared=False)
        maps.map_temporary(PAGE)
        m = maps.map_file(path, writable=True)
        maps.sync(m)
        maps.unmap(m)

        assert manager.orchestrator.usage(process.pid)["mmap"].count == 2


def test_usage_describes_each_map(manager: ProcessManager, maps: MmapManager, path: Path) -> None:
    """Path, length, and whether it is shared or private."""
    pid = manager.create_process("user").pid
    maps.map_file(pid, path)
    maps.map_file(pid, path, 100, shared=False, offset=PAGE)
    maps.map_file(pid, path, writable=False)
    maps.map_anonymous(pid, 50)
    usage = manager.orchestrator.usage(pid)["mmap"]

    assert (usage.count, usage.nbytes) == (4, 6 * PAGE + 150)
    assert [info.nbytes for info in usage.resources] == [3 * PAGE, 100, 3 * PAGE, 50]
    assert [info.description for info in usage.resources] == [
        f"shared map of {path}, {3 * PAGE} bytes",
        f"private map of {path}, 100 bytes from offset {PAGE}",
        f"shared read-only map of {path}, {3 * PAGE} bytes",
        "shared anonymous map, 50 bytes",
    ]


@pytest.mark.parametrize("limits", [KindLimits(max_bytes=2 * PAGE), KindLimits(max_count=1)])
def test_a_limit_refuses_before_anything_is_acquired(
    manager: ProcessManager, maps: MmapManager, tmp_path: Path, limits: KindLimits
) -> None:
    """No file appears for a temporary map that the limit refuses; nothing is mapped."""
    process = manager.create_process("limited", limits=ResourceLimits(by_kind={"mmap": limits}))
    maps.map_anonymous(process.pid, PAGE)
    before = KernelView.take()

    with pytest.raises(ResourceLimitExceeded, match="at most"):
        maps.map_temporary(process.pid, PAGE + 1, directory=tmp_path)

    assert list(tmp_path.iterdir()) == []
    assert before.changes() == []


def test_the_length_of_a_whole_file_counts_against_the_limit(
    manager: ProcessManager, maps: MmapManager, path: Path
) -> None:
    """A length of 0 is the file's, also to the limit."""
    limits = ResourceLimits(by_kind={"mmap": KindLimits(max_bytes=PAGE)})
    process = manager.create_process("limited", limits=limits)

    with pytest.raises(ResourceLimitExceeded, match=f"asked for {3 * PAGE} more"):
        maps.map_file(process.pid, path)

    assert not is_mapped(path)


def test_only_the_living_can_map(manager: ProcessManager, maps: MmapManager, path: Path) -> None:
    """Late registration for a terminated pid leaked for ever: it is refused."""
    process = manager.create_process("dead")
    manager.terminate_process(process.pid)

    with pytest.raises(ProcessTerminatedError):
        maps.map_file(process.pid, path)
    with pytest.raises(ProcessNotFoundError):
        maps.map_anonymous(process.pid + 1, PAGE)
