"""Who else has a map: what docs/guarantees.md says, and no other test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from probate import ProcessManager
    from probate_mmap import MmapManager


@pytest.mark.parametrize("what", ["anonymous", "file", "temporary"])
def test_a_child_keeps_what_it_has_mapped(
    manager: ProcessManager, maps: MmapManager, path: Path, what: str
) -> None:
    """munmap(2) is about one address space: who was forked before goes on with the pages."""
    process = manager.create_process("parent")
    if what == "anonymous":
        mapped = maps.map_anonymous(process.pid, 4096, shared=True)
    elif what == "file":
        mapped = maps.map_file(process.pid, path)
    else:
        mapped = maps.map_temporary(process.pid, 4096)
    mapped[:5] = b"hello"
    go_on, wrote = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(go_on[0], 1)
        os.write(wrote[1], mapped[:5])
        os._exit(0)

    result = process.terminate()
    os.write(go_on[1], b".")

    assert result.is_success
    assert result.stats.by_type == {"mmap": 1}
    assert mapped.closed
    assert os.read(wrote[0], 5) == b"hello"
    os.waitpid(child, 0)
    for fd in (*go_on, *wrote):
        os.close(fd)
