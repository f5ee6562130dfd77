"""The cleanup order of several kinds, from the place that each asks for.

Only this module decides order; pluggy is then fed so that its own rule reproduces it.
"""

from __future__ import annotations

import graphlib
import heapq
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

    sorter = graphlib.TopologicalSorter(earlier)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise OrderingCycleError(error.args[1]) from None

    rank = _ranks(orderings)
    order: list[str] = []
    ready: list[tuple[tuple[int, int, tuple[int, ...]], str]] = []
    while sorter.is_active():
        for kind in sorter.get_ready():
            heapq.heappush(ready, (rank[kind], kind))
        _, kind = heapq.heappop(ready)
        order.append(kind)
        sorter.done(kind)
    return order


def _ranks(orderings: Mapping[str, Ordering]) -> dict[str, tuple[int, int, tuple[int, ...]]]:
    """Rank kinds for a min-heap; one that must stand before another borrows its priority."""
    borrowed: dict[str, int] = {}

    def priority(kind: str) -> int:
        if kind not in borrowed:
            ordering = orderings[kind]
            followers = (priority(other) for other in ordering.before if other in orderings)
            borrowed[kind] = max((ordering.priority, *followers))
        return borrowed[kind]

    # Among equal priorities the lender's own kind comes after its borrowers anyway (they are its
    # predecessors); a borrower goes ahead of bystanders, and bystanders go by descending name.
    return {
        kind: (
            -priority(kind),
            orderings[kind].priority - priority(kind),
            (*(-ord(char) for char in kind), 1),
        )
        for kind in orderings
    }
