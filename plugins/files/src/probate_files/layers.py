"""The layers of a file object: what holds bytes back above a descriptor.

A file object is a stack of layers, down to the `FileIO` that has the descriptor:

    TextIOWrapper -> BufferedWriter -> FileIO               open(path, "w")
    TextIOWrapper -> GzipFile -> BufferedWriter -> FileIO   gzip.open(path, "wt")
    ZipFile -> BufferedRandom -> FileIO                     zipfile.ZipFile(path, "w")

Each holds bytes back; those that are neither text nor plain buffers write more when they are
closed, as gzip does its checksum. What somebody has put on top of an owned file is one more layer
of it (see `above`).
"""

from __future__ import annotations

import codecs
import io
import sys
from typing import Any, Final

#: Where the layers of the standard library keep the next one: codecs, text, buffered, gzip and
#: tar, bz2 and lzma, zip.
_BENEATH: Final = ("stream", "buffer", "raw", "fileobj", "_fp", "fp")

#: They hold back what an encoding such as ISO-2022-JP needs to be complete.
CODECS: Final = (codecs.StreamWriter, codecs.StreamReaderWriter, codecs.StreamRecoder)

#: What is no file object, but has one beneath: who has such a thing has imported its module.
_ARCHIVES: Final = (("zipfile", "ZipFile"), ("tarfile", "TarFile"), ("tarfile", "_Stream"))


def layers_of(file: object) -> tuple[Any, ...] | None:
    """The layers of a file object, outermost first, the last a `FileIO`; None if there is none.

    Raises ValueError for a file whose layers have been detached.
    """
    layers: list[Any] = []
    layer: Any = file
    while is_layer(layer) and layer not in layers:
        layers.append(layer)
        if isinstance(layer, io.FileIO):
            return tuple(layers)
        beneath = (getattr(layer, name, None) for name in _BENEATH)
        layer = next(filter(is_layer, beneath), None)
    return None


def is_layer(thing: object) -> bool:
    """Whether it is a file object, or has one beneath as those do."""
    return isinstance(thing, (io.IOBase, *CODECS)) or any(
        isinstance(thing, getattr(sys.modules.get(module), name, ())) for module, name in _ARCHIVES
    )
