"""Where a kind stands in the cleanup order, and how many stand in line.

Only this module decides order; pluggy is then fed so that its own rule reproduces it.
"""

from __future__ import annotations

import graphlib
import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from probate.errors import OrderingCycleError

if TYPE_CHECKING:
    from collections.abc import Mapping


@final
@dataclass(frozen=True, slots=True)
class Ordering:
    """A kind's place in the cleanup order.

    The highest `priority` is cleaned first; of equals, the alphabetically last kind.
    `before` and `after` name kinds and win over priority: a kind moves up to stand just
    before the kinds in `before`, and down to stand just after those in `after`. Kinds that
    are not installed are ignored.

    Raises TypeError for a priority that is no int, or a `before`/`after` that is no
    tuple or list of kind names.
    """

    priority: int
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.priority, int) or isinstance(self.priority, bool):
            raise TypeError(f"priority must be an int, got {self.priority!r}")
        for field in ("before", "after"):
            kinds = getattr(self, field)
            if not isinstance(kinds, (tuple, list)) or not all(isinstance(k, str) for k in kinds):
                raise TypeError(f"{field} must be a tuple of kind names, got {kinds!r}")
            object.__setattr__(self, field, tuple(kinds))


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
