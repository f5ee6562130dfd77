"""The number that a map keeps to itself: left alone once it is a stranger's."""

from __future__ import annotations

import gc
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from mmap_kernel import descriptors_of, is_mapped

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_mmap import MmapManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("access", [mmap.ACCESS_WRITE, mmap.ACCESS_READ, mmap.ACCESS_COPY])
@pytest.mark.parametrize("is_memmap", [False, True])
def test_a_number_that_is_a_strangers_by_now_is_not_closed_with_the_map(
    manager: ProcessManager, path: Path, access: int, is_memmap: bool, count: int
) -> None:
    """Python closes the number of an adopted map, whoever has it (python-manhole#58)."""
    process = manager.create_process("adopter")
    maps: list[mmap.mmap] = []
    with path.open("r+b") as file:
        for _ in range(count):
            maps.append(mmap.mmap(file.fileno(), 0, access=access))
            process.adopt(maps[-1])
    if is_memmap:
        array = np.memmap(path, mode="r+")
        process.adopt(array)
        del array
    numbers = descriptors_of(path)
    stranger = os.open(path.parent / "stranger", os.O_CREAT | os.O_RDWR)
    for number in numbers:
        os.dup2(stranger, number, inheritable=False)
    if access == mmap.ACCESS_WRITE:
        maps[0][:2] = b"hi"

    result = process.terminate()

    assert len(numbers) == count + is_memmap
    assert (result.is_success, result.stats.resources_freed) == (True, len(numbers))
    assert not is_mapped(path)
    assert path.read_bytes()[:2] == (b"hi" if access == mmap.ACCESS_WRITE else b"..")

    maps.clear()
    gc.collect()

    for number in numbers:
        assert os.path.samestat(os.fstat(number), os.fstat(stranger))
        os.close(number)
    os.close(stranger)


def test_the_number_of_a_temporary_maps_file_is_left_to_a_stranger(
    manager: ProcessManager, maps: MmapManager, tmp_path: Path
) -> None:
    """The path goes all the same, which the map still pins."""
    process = manager.create_process("owner")
    native = maps.map_temporary(process.pid, 10, directory=tmp_path)
    assert native.path is not None
    (number,) = descriptors_of(native.path)
    stranger = os.open(tmp_path / "stranger", os.O_CREAT | os.O_RDWR)
    os.dup2(stranger, number, inheritable=False)

    assert process.terminate().is_success
    assert not Path(native.path).exists()
    assert os.path.samestat(os.fstat(number), os.fstat(stranger))

    os.close(number)
    os.close(stranger)
