"""Sorts kinds into the cleanup order, from the place that each asks for.

Only this module decides the order; pluggy is then fed so that its own rule reproduces it.
"""

from __future__ import annotations

import graphlib
from functools import cache
from typing import TYPE_CHECKING

from probate.errors import OrderingCycleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from probate.ordering import Ordering


def cleanup_order(orderings: Mapping[str, Ordering]) -> list[str]:
    """Sort kinds into cleanup order.

    Raises OrderingCycleError, naming the members, when before/after contradict one another.
    """
    earlier: dict[str, set[str]] = {kind: set() for kind in orderings}
    for kind, ordering in orderings.items():
        for other in ordering.before:
            if other in earlier:
                earlier[other].add(kind)
        earlier[kind].update(other for other in ordering.after if other in earlier)

    @cache
    def priority(kind: str) -> int:
        """A kind that must come before another inherits its priority, if that is higher."""
        ordering = orderings[kind]
        others = (priority(other) for other in ordering.before if other in orderings)
        return max((ordering.priority, *others))

    def rank(kind: str) -> tuple[int, int, str]:
        """Of equal priorities, inherited ones go first; of equals, the alphabetically last kind."""
        return priority(kind), priority(kind) - orderings[kind].priority, kind

    sorter = graphlib.TopologicalSorter(earlier)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise OrderingCycleError(error.args[1]) from None
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready += sorter.get_ready()
        ready.sort(key=rank)
        order.append(ready.pop())
        sorter.done(order[-1])
    return order
