"""Run the program of litter by all supervisors, and renew docs/comparison.md.

    python tests/support/litter_table.py [--cells SUPERVISOR[:FAILURES],...] [--jobs NUMBER]

Without --cells, all of them: as root, also as an ordinary user. Cells that are not run stay as they
are. It takes ten minutes at most: what has not begun by then is named, and not run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, final

from documents import REPOSITORY
from litter import page
from litter.peers import Peers, fetch
from litter.results import FAILURES, Cell, Results
from litter.supervisors import SUPERVISORS

_CELL: Final = Path(__file__).with_name("litter_cell.py")

#: Nobody (Debian, Fedora): what an ordinary user may do, and owns nothing.
_NOBODY: Final = 65534

#: Seconds until no cell is begun, and that one cell may take then.
_MOST: Final = 360.0
_MOST_OF_ONE: Final = 90.0


@final
class Wanted(NamedTuple):
    """One cell that is to be run."""

    supervisor: str
    is_root: bool
    failure: str

    def run(self, peers: Peers) -> tuple[Cell, str]:
        """Run it, in an OS process of its own; return it, and what the supervisor has said.

        Raises OSError, SubprocessError, ValueError.
        """
        command = [sys.executable, str(_CELL), self.supervisor, self.failure, *map(str, peers)]
        nobody = _NOBODY if self.is_root != (os.geteuid() == 0) else None
        printed = subprocess.run(
            command,
            env={**peers.environment(), "HOME": "/nonexistent"},
            stdout=subprocess.PIPE,
            check=True,
            timeout=_MOST_OF_ONE,
            cwd="/",
            user=nobody,
            group=nobody,
            extra_groups=None if nobody is None else (),
        ).stdout
        read = json.loads(printed)
        return Cell(**read["cell"]), read["said"]


def wanted(text: str) -> list[Wanted]:
    """The cells that somebody asks for; all for nothing. Raises ValueError."""
    users = [True, False] if os.geteuid() == 0 else [False]
    names = [each.name.replace("`", "") for each in SUPERVISORS]
    chosen: dict[str, str] = {}
    for each in filter(None, text.split(",")):
        name, _, failures = each.partition(":")
        if name not in names or not set(failures) <= set(FAILURES):
            raise ValueError(f"{each!r} is none of {names}, with some of {''.join(FAILURES)}")
        chosen[name] = failures or "".join(FAILURES)
    return [
        Wanted(each.name, is_root, failure)
        for each in SUPERVISORS
        for is_root in users
        for failure in FAILURES
        if not chosen or failure in chosen.get(each.name.replace("`", ""), "")
    ]


def run_all(cells: list[Wanted], peers: Peers, jobs: int) -> list[Cell]:
    """Run cells, some at a time; name those that could not be run."""
    over = time.monotonic() + _MOST

    def run(cell: Wanted) -> Cell | None:
        if time.monotonic() > over:
            print(f"not run, out of time: {cell}", file=sys.stderr)
            return None
        try:
            ran, said = cell.run(peers)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            print(f"not run: {cell}: {error}", file=sys.stderr)
            return None
        if ran.left is None:
            print(f"{cell}: {ran.why}: {said}", file=sys.stderr)
        return ran

    with ThreadPoolExecutor(jobs) as pool:
        return [cell for cell in pool.map(run, cells) if cell is not None]


def main() -> int:
    """Run what the command line asks for; return 1 if something of it could not be run."""
    parser = argparse.ArgumentParser(description="what supervisors leave behind")
    parser.add_argument("--cells", default="", help="which; all if not said")
    parser.add_argument("--jobs", type=int, default=6, help="how many at a time")
    arguments = parser.parse_args()
    try:
        cells = wanted(arguments.cells)
    except ValueError as error:
        parser.error(str(error))
    peers = fetch(REPOSITORY / "build", REPOSITORY)
    ran = run_all(cells, peers, arguments.jobs)
    results = Results.read(page.RESULTS)
    results.renew(ran)
    machine = {"Linux": platform.release().partition("-")[0], "Python": platform.python_version()}
    results.versions = {**machine, **peers.versions()}
    results.write(page.RESULTS)
    page.renew(results)
    print(page.rendered(results))
    return 0 if len(ran) == len(cells) else 1


if __name__ == "__main__":
    sys.exit(main())
