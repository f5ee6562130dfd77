"""The descriptor that an mmap.mmap keeps to itself: found, and forgotten if it is another's."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from probate.system import MapDescriptor

if TYPE_CHECKING:
    from pathlib import Path


class OwnMap(mmap.mmap):
    """Somebody's own class of map."""


@pytest.mark.parametrize("kind", [mmap.mmap, OwnMap])
def test_the_number_of_a_map_is_told_and_closed_with_it(
    tmp_path: Path, kind: type[mmap.mmap]
) -> None:
    """Python shows it to nobody, and /proc shows that it is the one that `close` closes."""
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(1)
        native = kind(file.fileno(), 1)
        descriptor = MapDescriptor(native)

        assert descriptor.number != file.fileno()
        assert os.path.samestat(os.fstat(descriptor.number), os.fstat(file.fileno()))

    assert not descriptor.let_go_if_lost(native)

    native.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor.number)


def test_a_number_that_is_another_s_is_forgotten_by_the_map(tmp_path: Path) -> None:
    """Closing the map closed whatever had the number by then (cpython#115635 tells of the dup)."""
    with (tmp_path / "file").open("w+b") as file, (tmp_path / "stranger").open("w+b") as stranger:
        file.truncate(1)
        native = mmap.mmap(file.fileno(), 1)
        descriptor = MapDescriptor(native)
        number = descriptor.number
        os.dup2(stranger.fileno(), number, inheritable=False)

        assert descriptor.let_go_if_lost(native)
        assert not descriptor.let_go_if_lost(native)

        native[0] = 7
        native.close()

        assert os.path.samestat(os.fstat(number), os.fstat(stranger.fileno()))
        assert file.read() == b"\x07"
    os.close(number)


def test_a_map_without_a_descriptor_has_none() -> None:
    """Anonymous ones."""
    with mmap.mmap(-1, 1) as native:
        descriptor = MapDescriptor(native)

        assert descriptor.number == -1
        assert not descriptor.let_go_if_lost(native)
