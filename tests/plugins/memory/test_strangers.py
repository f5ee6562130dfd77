"""Numbers of a segment that were closed elsewhere, and are a stranger's, are left alone."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from memory_kernel import buffer_of, shm_names

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_memory import MemoryManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

#: What a stranger has written to its file.
_THEIRS = b"theirs" * 100


def numbers_of(name: str) -> list[int]:
    """The numbers that refer to a segment (proc(5))."""
    links = {int(path.name): path for path in Path("/proc/self/fd").iterdir()}
    found = []
    for number, path in links.items():
        try:
            found += [number] if os.readlink(path) == f"/dev/shm/{name}" else []
        except FileNotFoundError:
            continue
    return sorted(found)


@pytest.mark.parametrize("wipe", [False, True])
@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("role", ["owner", "user"])
def test_numbers_that_are_a_strangers_by_now_are_neither_closed_nor_wiped(
    manager: ProcessManager,
    memory: MemoryManager,
    tmp_path: Path,
    role: str,
    by_hand: bool,
    wipe: bool,
) -> None:
    """A segment has two numbers, its map's own among them, and maybe one to wipe it by.

    Each is compared before.
    """
    maker, process = manager.create_process("maker"), manager.create_process(role)
    others: list[int] = []
    if role == "owner":
        shm = memory.create_shared_memory(process.pid, size=1000, wipe=wipe)
    else:
        made = memory.create_shared_memory(maker.pid, size=1000)
        others = numbers_of(made.name)
        shm = memory.open_shared_memory(process.pid, made.name)
    numbers = [each for each in numbers_of(shm.name) if each not in others]
    buffer_of(shm)[:6] = b"secret"
    seen = np.memmap(f"/dev/shm/{shm.name}", mode="r", shape=1000)
    (tmp_path / "stranger").write_bytes(_THEIRS)
    stranger = os.open(tmp_path / "stranger", os.O_RDWR)
    for number in numbers:
        os.dup2(stranger, number, inheritable=False)

    if by_hand:
        memory.close(process.pid, shm)
    result = process.terminate()

    assert len(numbers) == 2 + (role == "owner" and wipe)
    assert result.is_success
    assert result.stats.resources_freed == (not by_hand)
    assert (shm.name in shm_names()) == (role == "user")
    assert bytes(seen[:6]) == (b"secret" if role == "user" or not wipe else bytes(6))

    del shm
    gc.collect()

    status = os.fstat(stranger)
    for number in numbers:
        assert os.path.samestat(os.fstat(number), status)
        os.close(number)
    assert os.pread(stranger, 1000, 0) == _THEIRS
    os.close(stranger)
