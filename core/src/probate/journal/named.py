"""Named: what a plugin says of a thing that outlives its maker by its name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

M = TypeVar("M")

#: Flags of open(2) for a file where nothing is yet, as `new_file` makes it.
NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@final
class Named(NamedTuple, Generic[M]):
    """Says how a thing will be found should its owner die, for the journal.

    `before` is known before it is made: its name, at least. `after` is called with what was made,
    and returns what tells it from any other that may have its name by then. Both are JSON values.
    A name that nobody else can have chosen is said so by `"is_random": True` in `before`: then even
    what was never confirmed is given back.
    """

    #: For accounts, such as "shared memory /x".
    description: str
    before: Mapping[str, Any]
    after: Callable[[M], Mapping[str, Any]]


def random_path(folder: str, prefix: str, suffix: str = "") -> str:
    """Return a path in a folder that nobody can guess, and nothing can be at.

    For what is to be made there by a system call that fails if it is taken all the same.
    """
    return os.path.join(folder, f"{prefix}{os.urandom(8).hex()}{suffix}")  # noqa: PTH118  a string


def new_file(path: str) -> int:
    """Make a file where nothing is yet, for its user only; return its descriptor.

    As tempfile does. Raises OSError, FileExistsError included.
    """
    return os.open(path, NEW, 0o600)
