"""The programs that settle what dead hosts have left, and whether there is anything for them to do.

What the reaper becomes when the host has died; and what is started at once where there are stores
of hosts whose reapers have died, too. Each imports from where a host can: the header of its store
says that.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from probate.journal.folders import HEADER, host_folders, read_json
from probate.journal.header import is_dead

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PATH: Final = "import json, sys; sys.path[:] = json.load(open({}))['path']; "
_SETTLER: Final = (
    _PATH.format(f"sys.argv[1] + '/{HEADER}'")
    + "from probate.settlement.settling import main; main()"
)
#: By its standard input: the host that has it started may have ended by then, and its store gone.
_SWEEPER: Final = _PATH.format(0) + "from probate.settlement.sweeping import main; main()"


def settler(folder: Path) -> list[str]:
    """Return the program that settles the host of a folder."""
    return [sys.executable, "-I", "-S", "-c", _SETTLER, str(folder)]


def sweep_beside(own: Path, run: Callable[[list[str], int], object], where: str | None) -> None:
    """Have dead hosts settled, if there are any, for a host that lives and has that folder.

    In `where`, or wherever this user's are kept. `run` is called with a program, and a descriptor
    that is to be its standard input. Raises what it raises.
    """
    if _sees_dead_hosts(own, where):
        # Its own may have been removed, such as at the end of a login.
        with suppress(FileNotFoundError), open(own / HEADER, "rb") as header:
            program = [sys.executable, "-I", "-S", "-c", _SWEEPER]
            run(program if where is None else [*program, where], header.fileno())


def _sees_dead_hosts(own: Path, where: str | None) -> bool:
    for folder in host_folders(where):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if folder != own and is_dead(read_json(folder / HEADER)):
                return True
    return False
