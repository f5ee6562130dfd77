"""The blocks of a ring: where they lie, and which are in somebody's hands."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from probate_rings.layout import Geometry

#: Bytes; at most as many zeros are kept, to be copied.
_CLEARED_AT_ONCE: Final = 1 << 16


@final
class Pool:
    """Makes views of blocks; nothing is copied but zeros."""

    __slots__ = ("_block_size", "_memory", "_readable", "_start", "_stride", "_zeros")

    def __init__(self, memory: memoryview, geometry: Geometry) -> None:
        self._memory = memory
        self._readable = memory.toreadonly()
        self._start, self._stride = geometry.pool, geometry.stride
        self._block_size = geometry.block_size
        self._zeros = bytes(min(geometry.block_size, _CLEARED_AT_ONCE))

    def writable(self, index: int) -> memoryview:
        """A whole block, zeroed: nobody ever finds in it what another message left there."""
        start = self._start + index * self._stride
        view = self._memory[start : start + self._block_size]
        if self._block_size == len(self._zeros):
            view[:] = self._zeros
        else:
            for at in range(0, self._block_size, _CLEARED_AT_ONCE):
                view[at : at + _CLEARED_AT_ONCE] = self._zeros[: self._block_size - at]
        return view

    def readable(self, index: int, length: int) -> memoryview:
        """The first `length` bytes of a block, read-only."""
        start = self._start + index * self._stride
        return self._readable[start : start + length]

    def release(self) -> None:
        """Make no more views; those that were made live on."""
        self._readable.release()
        self._memory.release()


@final
class Blocks:
    """Views of blocks that were handed out, found by view or by the block's index."""

    __slots__ = ("_by_view", "_views", "what")

    def __init__(self, what: str) -> None:
        #: How they came out, for errors: "reserved", "received".
        self.what = what
        self._views: dict[int, memoryview] = {}
        # By id: a memoryview is compared by its contents. `_views` keeps the object alive.
        self._by_view: dict[int, int] = {}

    def __contains__(self, block: object) -> bool:
        """Whether a block, by index or by its view, is out."""
        return id(block) in self._by_view if isinstance(block, memoryview) else block in self._views

    def hand_out(self, index: int, view: memoryview) -> memoryview:
        """Note that a block is out; return its view."""
        self._views[index] = view
        self._by_view[id(view)] = index
        return view

    def take_back(self, view: memoryview | None) -> int:
        """Take a block out of the holder's reach; return its index.

        None stands for the only one that is out. Raises ValueError if it is not out, and
        BufferError, with nothing changed, while something else uses the view.
        """
        if view is None:
            if len(self._views) != 1:
                raise ValueError(
                    f"{len(self._views)} blocks are {self.what}: say which one is meant"
                )
            index = next(iter(self._views))
        else:
            if not isinstance(view, memoryview):
                raise TypeError(f"expected the view of a block, got {view!r}")
            found = self._by_view.get(id(view))
            if found is None:
                raise ValueError(f"not a block that this end has {self.what}: {view!r}")
            index = found
        own = self._views[index]
        own.release()
        del self._views[index], self._by_view[id(own)]
        return index

    def revoke(self) -> int:
        """Release all views; return how many are in use elsewhere and could not be."""
        for index, view in list(self._views.items()):
            with contextlib.suppress(BufferError):
                view.release()
                del self._views[index], self._by_view[id(view)]
        return len(self._views)
