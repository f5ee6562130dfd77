"""Argument vectors, checked before anything is started."""

from __future__ import annotations

import os
from collections.abc import Sequence

#: What an argument vector may consist of.
Argument = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def checked_argv(argv: object) -> list[Argument]:
    """Check an argument vector, and return it as a list.

    Use it before anything is created that a bad vector would leave behind. Raises TypeError for
    a bare string and for arguments of other types, ValueError for an empty vector or a NUL.
    """
    if isinstance(argv, (str, bytes)) or not isinstance(argv, Sequence):
        raise TypeError(
            f"argv must be a sequence of arguments, got {argv!r}; shlex.split makes one of a string"
        )
    if not argv:
        raise ValueError("argv must name a program, and is empty")
    for argument in argv:
        if not isinstance(argument, (str, bytes, os.PathLike)):
            raise TypeError(f"an argument must be a string, bytes or a path, got {argument!r}")
        if b"\0" in os.fsencode(argument):
            raise ValueError(f"an argument cannot contain NUL: {argument!r}")
    return list(argv)
