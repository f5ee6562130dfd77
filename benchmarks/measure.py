"""Measuring in pairs, and what a row of the table is.

A shared machine has moods, so nothing here stands alone: ours and its peer take turns within one
run, and what counts is the median of the pairs' ratios.
"""

from __future__ import annotations

import gc
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: How many pairs make a median.
PAIRS: Final = 41

#: Pairs that are run first and not counted.
_WARM_UP: Final = 3

#: As many where one run calls each function once: the interpreter specialises what is called over
#: and over (PEP 659), which takes some dozens of calls, on either side.
LONG_WARM_UP: Final = 30


@dataclass(frozen=True)
class Row:
    """One line of the table; `target` bounds the ratio from above, None if it is for information.

    `unit` is that of `ours` and `theirs`: "s", "B" or "" for a plain number.
    """

    what: str
    ours: float
    peer: str
    theirs: float
    ratio: float
    target: float | None = None
    unit: str = "s"
    #: Lower and upper quartile of the ratios, if there were several.
    quartiles: tuple[float, float] | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        return None if self.target is None else self.ratio <= self.target


@dataclass
class Series:
    """One line of the plot: seconds over how many there are of something."""

    title: str
    over: str
    points: list[tuple[int, float]] = field(default_factory=list)


def compare(
    what: str,
    ours: Callable[[], float],
    peer: str,
    theirs: Callable[[], float],
    *,
    target: float | None = None,
    pairs: int = PAIRS,
    warm_up: int = _WARM_UP,
    note: str = "",
) -> Row:
    """Run both in turn, `pairs` times, the one first and then the other.

    Each sets itself up and returns the seconds that count.
    """
    samples: list[tuple[float, float]] = []
    for turn in range(-warm_up, pairs):
        if turn % 2:
            theirs_took, ours_took = theirs(), ours()
        else:
            ours_took, theirs_took = ours(), theirs()
        if turn >= 0:
            samples.append((ours_took, theirs_took))
    ratios = [a / b for a, b in samples]
    mine, other = (statistics.median(column) for column in zip(*samples, strict=True))
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    return Row(what, mine, peer, other, middle, target=target, quartiles=(lower, upper), note=note)


def print_rows(rows: Iterable[Row]) -> None:
    """Print rows that are measured in milliseconds, a line each, and whether they hold."""
    for row in rows:
        verdict = {None: "", True: "holds", False: "MISSED"}[row.holds]
        print(
            f"{row.what:58} {row.ours * 1e3:8.2f} ms {row.theirs * 1e3:8.2f} ms "
            f"{row.ratio:6.2f}x {verdict:6}  {row.peer} {row.note}"
        )


def loop(function: Callable[[], object], number: int) -> Callable[[], float]:
    """Have `function` called `number` times; the seconds that one call takes."""

    def run() -> float:
        turns = range(number)
        with no_collector():
            started = time.perf_counter()
            for _ in turns:
                function()
            return (time.perf_counter() - started) / number

    return run


@contextmanager
def no_collector() -> Iterator[None]:
    """As in timeit: collect what there is, and then no more until it is over."""
    gc.collect(0)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
