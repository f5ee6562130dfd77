"""A forked child owns nothing: whatever tells who owns what forgets it on the child's side.

`os.register_at_fork` keeps its callbacks for ever, so one callback serves all objects, weakly.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """Holds something that a forked child must not act upon."""

    def forget_parent(self) -> None:
        """Start afresh, releasing and finalising nothing. Runs in the child, single-threaded."""


_fork_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def forget_in_forked_child(holder: ForkAware) -> None:
    """Have `holder.forget_parent()` called in every child forked from here on.

    For objects that hold locks, threads or resources, of which a child has but copies. They are
    held weakly: whoever is gone is not called.
    """
    _fork_aware.add(holder)


def _in_child() -> None:
    for holder in list(_fork_aware):
        holder.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
