"""The checks for ints, pids and seconds that come from a caller."""

from __future__ import annotations

import math
import operator
import sys


def checked_int(
    name: str, value: object, *, least: int | None = None, most: int | None = None
) -> int:
    """Return `value` as an int, whatever integer type it is of (operator.index); a bool is none.

    `name` says in the error what it is. Raises TypeError for what is no integer, ValueError for
    what is below `least` or above `most`.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]  # a TypeError is the answer
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None
    if least is not None and number < least:
        bounds = f"at least {least}" if most is None else f"{least} to {most}"
    elif most is not None and number > most:
        bounds = f"at most {most}" if least is None else f"{least} to {most}"
    else:
        return number
    raise ValueError(f"{name} must be {bounds}, got {value!r}")


def checked_pid(pid: object) -> int:
    """Return `pid` as an int. Raises TypeError for what is none, a bool or a string of digits too.

    A table would take True for process 1, and "1" for a process that there is not.
    """
    return checked_int("a pid", pid)


def checked_seconds(name: str, seconds: float) -> float:
    """Return `seconds`, for ever if no float is as much. Raises ValueError unless at least 0."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds >= 0:
        raise ValueError(f"{name} must be a number of seconds of at least 0, got {seconds!r}")
    return seconds if seconds <= sys.float_info.max else math.inf
