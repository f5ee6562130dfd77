"""Temporary maps, and the files behind them."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_mmap import MmapManager

PAGE = mmap.PAGESIZE

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_the_file_of_a_temporary_map_goes_with_it(
    manager: ProcessManager, maps: MmapManager, tmp_path: Path
) -> None:
    """Others may use the path meanwhile; the owner's end unlinks it."""
    process = manager.create_process("temporary")
    m = maps.map_temporary(process.pid, 5000, directory=tmp_path)
    m[:5] = b"hello"

    assert [str(each) for each in tmp_path.iterdir()] == [m.path]
    assert Path(m.path or "").read_bytes() == b"hello" + bytes(4995)

    result = manager.terminate_process(process.pid)

    assert (result.is_success, result.stats.bytes_freed) == (True, 5000)
    assert list(tmp_path.iterdir()) == []


def test_the_path_of_a_temporary_map_is_left_to_its_successor(
    manager: ProcessManager, maps: MmapManager, tmp_path: Path
) -> None:
    """Old server deleted its successor's path: device and inode are compared while it is open."""
    process = manager.create_process("temporary")
    m = maps.map_temporary(process.pid, PAGE, directory=tmp_path)
    path = Path(m.path or "")
    path.unlink()
    path.write_bytes(b"successor's")

    with pytest.raises(FileNotFoundError, match="another file"):
        m.size()

    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert path.read_bytes() == b"successor's"


def test_a_temporary_map_that_was_closed_directly_still_loses_its_file(
    manager: ProcessManager, maps: MmapManager, tmp_path: Path
) -> None:
    """Its file is ours to remove, whoever closed the map."""
    process = manager.create_process("temporary")
    maps.map_temporary(process.pid, PAGE, directory=tmp_path).close()
    unmapped = maps.map_temporary(process.pid, PAGE, directory=tmp_path)
    maps.unmap(process.pid, unmapped)

    assert len(list(tmp_path.iterdir())) == 1
    assert manager.terminate_process(process.pid).is_success
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_at_once(
    manager: ProcessManager, maps: MmapManager, tmp_path: Path
) -> None:
    """The blocks are there before the map is, so that no access to it dies of SIGBUS."""
    process = manager.create_process("greedy")

    with pytest.raises(OSError, match=r"No space left|File too large"):
        maps.map_temporary(process.pid, 1 << 50, directory=tmp_path)

    assert list(tmp_path.iterdir()) == []
    assert not manager.orchestrator.has_resources(process.pid)
