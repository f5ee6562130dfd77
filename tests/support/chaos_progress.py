"""Tells how far something has come that takes long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds between two words of it.
_PAUSE: Final = 10.0


def told(numbers: range, tell: Callable[..., None]) -> Iterator[int]:
    """Go through numbers, and say now and then where, and how long it will take."""
    begun = said = time.monotonic()
    for number in numbers:
        now = time.monotonic()
        if now - said > _PAUSE:
            said = now
            done = (number - numbers.start) / (numbers.stop - numbers.start)
            rest = (now - begun) * (1 - done) / done
            tell(f"{number - numbers.start} of {numbers.stop - numbers.start}; {rest:.0f} s more")
        yield number
