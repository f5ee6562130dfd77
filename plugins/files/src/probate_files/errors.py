"""Buffered data that could not be written."""

from __future__ import annotations

import errno
import os
from typing import final

from probate import ProbateError


@final
class LostDataError(ProbateError, OSError):
    """Buffered data could not be written; its descriptor is closed all the same.

    As OSError it has `errno` and `filename`: ENOSPC for a full disk, EPIPE for a pipe without a
    reader, EBADF for a descriptor that somebody else has closed.
    """

    #: How many bytes are lost at least; None where that cannot be known, as of a pipe.
    nbytes: int | None

    def __init__(self, nbytes: int | None, path: str, number: int, reason: str = "") -> None:
        amount = "an unknown number of" if nbytes is None else f"at least {nbytes}"
        unit = "byte is" if nbytes == 1 else "bytes are"
        why = reason or os.strerror(number)
        super().__init__(number, f"{amount} buffered {unit} lost: {why}", path)
        self.nbytes = nbytes

    def __reduce__(self) -> tuple[type[LostDataError], tuple[int | None, str, int, str]]:
        reason = str(self.strerror).partition(" lost: ")[2]
        return LostDataError, (self.nbytes, self.filename, self.errno or errno.EIO, reason)
