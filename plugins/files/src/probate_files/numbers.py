"""The descriptors that a path is open by, where only a library knows its own."""

from __future__ import annotations

import errno
import os
from typing import Self, final

from probate import Outcome, has_owner
from probate.system import OwnedDescriptor, path_of
from probate_files.locks import locks_of


@final
class OpenNumbers:
    """The numbers by which this process has a path open now, but for those that have an owner."""

    __slots__ = ("_found", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: list[OwnedDescriptor] = []
        real = os.path.realpath(path) if path else ""
        for number in map(int, os.listdir("/proc/self/fd") if real else ()):  # noqa: PTH208  a fraction of the time
            if path_of(number) == real and not has_owner(number):
                self._found.append(OwnedDescriptor(number))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._found)

    def locked(self) -> Self:
        """Those that hold a lock."""
        made = type(self)("")
        made._path = self._path  # noqa: SLF001  one of its own
        made._found = [each for each in self._found if locks_of(each.number)]  # noqa: SLF001  as above
        return made

    def left(self) -> bool:
        """Whether any is open still."""
        return any(each.is_ours for each in self._found)

    def check(self) -> None:
        """Raise OSError (EBADF) if all were closed elsewhere, and so may be another's by now."""
        if self._found and not self.left():
            raise OSError(
                errno.EBADF,
                "somebody else has closed its descriptor: not closed, and what it held is lost",
                self._path,
            )

    def close(self) -> Outcome:
        """Close what is open still."""
        # One may have got an owner since.
        outcomes = [each.close() for each in self._found if not has_owner(each.number)]
        return Outcome.RELEASED if Outcome.RELEASED in outcomes else Outcome.ALREADY_GONE
