"""Making things so that an exception which falls in leaves nothing of them.

A signal handler of Python's runs between two steps of the interpreter, also between a system call
and the note of what that has returned. What is noted in the same step, of C, is known to whoever
undoes it, whatever the handler raises.
"""

from __future__ import annotations

import os
from collections import deque
from itertools import chain, repeat, starmap
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

M = TypeVar("M")
R = TypeVar("R")


def built(
    make: Callable[[], M],
    build: Callable[[M], R],
    undo: Callable[[M], object],
    within: AbstractContextManager[object] | None = None,
) -> R:
    """Make something, and return what is built of it; if that fails, `undo` what was made.

    `make` is a call of C, such as a `functools.partial` of one, or leaves nothing by itself of what
    it fails to return. It is called `within` a context, which may make other errors of its own.
    Raises what they raise.
    """
    made: list[M] = []
    try:
        if within is None:
            take(made, make)
        else:
            with within:
                take(made, make)
        return build(made[0])
    except BaseException:
        for each in made:
            undo(each)
        raise


def using(open_one: Callable[[], int], use: Callable[[int], R]) -> R:
    """Open a descriptor for one call, which is `use`, and close it whatever falls in."""
    numbers: list[int] = []
    try:
        take(numbers, open_one)
        result = use(numbers[0])
        give_back(numbers, 1)
        return result
    except BaseException:
        # Also what falls in just before it is closed.
        give_back(numbers, len(numbers))
        raise


def take(taken: list[M], make: Callable[..., M], *arguments: Any) -> None:
    """Make something, and add it to what is to be given back; in one step, if `make` is of C.

    Raises what `make` raises.
    """
    taken.extend(starmap(make, (arguments,)))


def take_all(numbers: list[int], open_some: Callable[[], Iterable[int]]) -> None:
    """Open several, and add them, in one step. Raises what `open_some` raises."""
    numbers.extend(chain.from_iterable(starmap(open_some, ((),))))


def give_back(numbers: list[int], count: int) -> None:
    """Close the last ones, each taken out in the same step."""
    deque(map(os.close, starmap(numbers.pop, repeat((), count))), 0)
