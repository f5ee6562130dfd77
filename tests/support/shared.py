"""What is made once in a session, by whichever of its workers comes to it first."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The path of this name that `make` makes, below the folder of the session; it stays there.

    Others who come meanwhile wait for it. If it cannot be made, each of them tries, and fails.
    """
    session = factory.getbasetemp()
    if session.name.startswith("popen-"):
        # That of a worker (pytest-xdist).
        session = session.parent
    path = session / name
    made = Path(f"{path}.made")
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(path)
            made.touch()
    return path
