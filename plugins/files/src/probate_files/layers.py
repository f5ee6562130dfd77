"""File objects, layer by layer, down to the `FileIO` that has the descriptor.

    TextIOWrapper -> BufferedWriter -> FileIO           open(path, "w")
    TextIOWrapper -> GzipFile -> BufferedWriter -> FileIO   gzip.open(path, "wt")

Each layer holds bytes back; those that are neither text nor plain buffers write more when they
are closed, as gzip does its checksum.
"""

from __future__ import annotations

import io
from typing import Any, Final

#: Where the layers of the standard library keep the next one: text, buffered, gzip, bz2 and lzma.
_BENEATH: Final = ("buffer", "raw", "fileobj", "_fp")

_PLAIN: Final = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom)


def layers_of(file: io.IOBase) -> tuple[list[Any], io.FileIO] | None:
    """The layers above the `FileIO`, outermost first, and the `FileIO`; None if there is none.

    Raises ValueError for a file that is closed, or whose layers have been detached.
    """
    above: list[Any] = []
    layer: object = file
    while not isinstance(layer, io.FileIO):
        if not isinstance(layer, io.IOBase) or layer in above:
            return None
        above.append(layer)
        layer = next(
            (found for name in _BENEATH if (found := getattr(layer, name, None)) is not None),
            None,
        )
    return above, layer


def are_standard(above: list[Any], raw: io.FileIO) -> bool:
    """Whether they are what `open` makes, and nothing derived from it."""
    return type(raw) is io.FileIO and all(type(layer) in _PLAIN for layer in above)


def flush(above: list[Any], *, finish: bool) -> None:
    """Have the layers hand down what they hold back; with `finish`, for good."""
    for layer in above:
        if isinstance(layer, _PLAIN):
            try:  # noqa: SIM105  `suppress` takes longer than the rest
                layer.flush()
            except ValueError:
                # A layer that was detached since holds nothing; the next is flushed all the same.
                pass
        elif finish:
            layer.close()
        elif not layer.closed:
            layer.flush()
