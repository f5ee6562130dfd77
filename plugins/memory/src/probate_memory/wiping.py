"""Zeros to write over what is to be given back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Zeros that are written at a time: as many as the whole would take the memory twice.
_CHUNK: Final = 1 << 20


def zeros_over(start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Zeros for the bytes from `start` to `end`, in chunks, each with where it goes."""
    zeros = bytes(min(_CHUNK, end - start))
    for offset in range(start, end, _CHUNK):
        yield offset, zeros[: end - offset]
