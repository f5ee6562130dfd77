"""Where in the code something was acquired: noted in a microsecond or two, and read only if asked.

A site is the stack of whoever acquired, as code objects and positions in them; frames themselves
would keep alive what they refer to. What the stack tells is whose doing it was: the test's, that of
a library, of a module that was just being imported, or of pytest itself.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self, final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

#: Frames that are noted; the innermost ones tell the most.
_DEPTH: Final = 60

_PATHS: Final = sysconfig.get_paths()

#: Folders of the standard library, and of what is installed, which often is within the former.
_STDLIB: Final = tuple(f"{_PATHS[name]}/" for name in ("stdlib", "platstdlib"))
_INSTALLED: Final = (
    *(f"{_PATHS[name]}/" for name in ("purelib", "platlib")),
    # Wherever the distribution of an operating system has it.
    f"{Path(pytest.__file__).parents[1]}/",
)

#: pytest, and what it is made of, or extended by: what they acquire is not the test's.
_MACHINERY: Final = tuple(
    f"{folder}{name}"
    for folder in _INSTALLED
    for name in (
        "_pytest/", "pytest", "pluggy/", "xdist/", "execnet/", "coverage/", "hypothesis/",
        "anyio/pytest_plugin.py",
    )
)  # fmt: skip

_OWN: Final = __file__.rpartition("/")[0] + "/"

#: Of the import system, whose modules are frozen into the interpreter.
_IMPORTING: Final = "<frozen importlib"


@final
class Place(NamedTuple):
    """One line of code."""

    file: str
    line: int
    function: str


@final
class Site(NamedTuple):
    """A stack, innermost frame first, and the thread it is of."""

    frames: tuple[tuple[CodeType, int], ...]
    #: The kernel's id of the thread (gettid(2)).
    tid: int

    @classmethod
    def here(cls) -> Self:
        """Note the stack of the caller."""
        frames = []
        frame = sys._getframe(1)  # noqa: SLF001  documented, and the only way
        for _ in range(_DEPTH):
            frames.append((frame.f_code, frame.f_lasti))
            if frame.f_back is None:
                break
            frame = frame.f_back
        return cls(tuple(frames), threading.get_native_id())

    def places(self) -> Iterator[Place]:
        """Return the lines that are of neither the standard library nor pytest, innermost first."""
        for code, at in self.frames:
            file = code.co_filename
            if not (is_standard(file) or file.startswith(_OWN)):
                if file.startswith(_MACHINERY):
                    return
                yield Place(file, _line(code, at), code.co_qualname)

    @property
    def is_import(self) -> bool:
        """Whether a module was just being imported by what `places` tells of."""
        for code, _ in self.frames:
            if code.co_filename.startswith(_IMPORTING):
                return True
            if code.co_filename.startswith(_MACHINERY):
                return False
        return False

    @property
    def is_machinery(self) -> bool:
        """Whether pytest itself acquired it: nobody else's code stands above its own."""
        return (
            bool(self.frames)
            and next(self.places(), None) is None
            and any(code.co_filename.startswith(_MACHINERY) for code, _ in self.frames)
        )


def is_standard(file: str) -> bool:
    """Tell whether a file is of the standard library."""
    return file.startswith("<frozen") or (
        file.startswith(_STDLIB) and not file.startswith(_INSTALLED)
    )


def _line(code: CodeType, at: int) -> int:
    for start, end, line in code.co_lines():
        if start <= at < end and line is not None:
            return line
    return code.co_firstlineno
