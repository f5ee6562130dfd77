"""The one check for whole numbers, for whoever takes one from a caller."""

from __future__ import annotations

import operator


def checked_int(
    name: str, value: object, *, least: int | None = None, most: int | None = None
) -> int:
    """Return a whole number as an int, whatever integer type it came as (operator.index).

    `name` says in the error what it is. Raises TypeError for what is no integer, a bool among
    them, and ValueError for what is below `least` or above `most`.
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
