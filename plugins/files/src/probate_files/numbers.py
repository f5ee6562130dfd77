"""The descriptors that a path is open by, where only a library knows its own."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Self, final

from probate import Outcome
from probate.system import close_if_same, identify, is_still, path_of
from probate_files.locks import locks_of

if TYPE_CHECKING:
    from probate.system import FileIdentity


@final
class OpenNumbers:
    """The numbers by which this process has a path open now, and what they refer to."""

    __slots__ = ("_found", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: list[tuple[int, FileIdentity]] = []
        real = os.path.realpath(path) if path else ""
        for name in os.listdir("/proc/self/fd") if real else ():  # noqa: PTH208  a fraction of the time
            if path_of(int(name)) == real:
                self._found.append((int(name), identify(int(name))))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._found)

    def locked(self) -> Self:
        """Those that hold a lock."""
        made = type(self)("")
        made._path = self._path  # noqa: SLF001  one of its own
        made._found = [each for each in self._found if locks_of(each[0])]  # noqa: SLF001  as above
        return made

    def left(self) -> bool:
        """Whether any is open still."""
        return any(is_still(*each) for each in self._found)

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
        outcomes = [close_if_same(*each) for each in self._found]
        return Outcome.RELEASED if Outcome.RELEASED in outcomes else Outcome.ALREADY_GONE
