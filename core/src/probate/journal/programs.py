"""The programs that settle what dead hosts have left, and whether there is anything for them to do.

The first argument of each is the folder of a store, with all that its host can import from: what
the reaper becomes when the host has died; and what is started at once where there are stores of
hosts whose reapers have died, too.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from probate.journal.folders import HEADER, host_folders, read_json
from probate.journal.header import is_dead

if TYPE_CHECKING:
    from pathlib import Path

_PATH: Final = (
    "import json, sys; sys.path[:] = json.load(open(sys.argv[1] + '/" + HEADER + "'))['path']; "
)
_SETTLER: Final = _PATH + "from probate.settlement.settling import main; main()"
_SWEEPER: Final = _PATH + "from probate.settlement.sweeping import main; main()"


def settler(folder: Path) -> list[str]:
    """Return the program that settles the host of a folder."""
    return [sys.executable, "-I", "-S", "-c", _SETTLER, str(folder)]


def sweeper(folder: Path) -> list[str]:
    """Return the program that settles all dead hosts that have folders beside that one."""
    return [sys.executable, "-I", "-S", "-c", _SWEEPER, str(folder)]


def sees_dead_hosts(own: Path, where: str | None = None) -> bool:
    """Tell whether there are stores of dead hosts, in `where` or wherever this user's are kept."""
    for folder in host_folders(where):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if folder != own and is_dead(read_json(folder / HEADER)):
                return True
    return False
