"""Maps made elsewhere: `mmap.mmap` objects and numpy memmaps.

A numpy memmap lies on an `mmap.mmap` without exporting a buffer of it: closing the map under a
living array succeeds, and the next look at the array is a SIGSEGV. All views refer to the array
that lies on the map directly, so that a map is unused once that one is gone.
"""

from __future__ import annotations

import mmap
import sys


def find_map(resource: object) -> tuple[mmap.mmap, object] | None:
    """The `mmap.mmap` that `resource` is, or that a numpy memmap or a view of one lies on.

    With it, the array that lies on it directly; None for a bare map. None altogether for
    anything else, and for a memmap without a map.
    """
    if isinstance(resource, mmap.mmap):
        return resource, None
    # Whoever has a memmap has imported numpy; for anybody else it need not even be installed.
    numpy = sys.modules.get("numpy")
    if not isinstance(resource, getattr(numpy, "memmap", ())):
        return None
    array: object = resource
    while (below := getattr(array, "base", None)) is not None:
        if isinstance(below, mmap.mmap):
            return below, array
        array = below
    return None


def checked_map(resource: object) -> mmap.mmap:
    """The map of `find_map`. Raises TypeError where there is none."""
    found = find_map(resource)
    if found is None:
        raise TypeError(f"expected a memory map or a numpy memmap of a file, got {resource!r}")
    return found[0]
