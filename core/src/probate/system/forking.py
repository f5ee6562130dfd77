"""A forked child owns nothing: whatever keeps books empties them on the child's side.

`os.register_at_fork` keeps its callbacks for ever, so one callback serves all books, weakly.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Bookkeeper(Protocol):
    """Something that holds what a forked child must not act upon."""

    def forget_parent(self) -> None:
        """Start afresh, releasing and finalising nothing. Runs in the child, single-threaded."""


_bookkeepers: weakref.WeakSet[Bookkeeper] = weakref.WeakSet()


def forget_in_forked_child(bookkeeper: Bookkeeper) -> None:
    """Have `bookkeeper.forget_parent()` called in every child forked from here on."""
    _bookkeepers.add(bookkeeper)


def _in_child() -> None:
    for bookkeeper in list(_bookkeepers):
        bookkeeper.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
