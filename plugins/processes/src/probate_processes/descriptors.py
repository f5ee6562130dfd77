"""Descriptor numbers, kept in a list from the moment on at which the kernel gives them out.

Each function takes one step, of C: an exception that a signal handler raises comes before it, or
after it, and whoever has the list closes what there is.
"""

from __future__ import annotations

import os
from collections import deque
from itertools import chain, repeat, starmap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def take(numbers: list[int], open_one: Callable[..., int], *arguments: Any) -> None:
    """Open a descriptor, and add it. Raises what `open_one` raises."""
    numbers.extend(starmap(open_one, (arguments,)))


def take_all(numbers: list[int], open_some: Callable[[], Iterable[int]]) -> None:
    """Open several, and add them. Raises what `open_some` raises."""
    numbers.extend(chain.from_iterable(starmap(open_some, ((),))))


def give_back(numbers: list[int], count: int) -> None:
    """Close the last ones."""
    deque(map(os.close, starmap(numbers.pop, repeat((), count))), 0)
