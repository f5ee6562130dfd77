"""Starting: whole commands, beside an interpreter that imports the libraries below Probate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from measure import Row, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

PAIRS: Final = 21

PROBATE: Final = str(Path(sys.executable).with_name("probate"))

IMPORTS: Final = "import pluggy, stevedore, pydantic, psutil"
PEER: Final = (sys.executable, "-c", IMPORTS)


def seconds(command: Sequence[str], folder: str) -> float:
    """Run a command to its end; how long it took, by the clock on the wall."""
    started = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment(folder)
    )
    return time.perf_counter() - started


def environment(folder: str) -> dict[str, str]:
    """Without settings; all modules compiled, on either side, as pip leaves what it installs.

    Of what is installed editable it compiles nothing, and where bytecode is not to be written,
    each start would compile all of Probate anew, and nothing of its peer.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("PROBATE_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {**environment, "PYTHONPYCACHEPREFIX": folder}


def loaded_kinds(folder: str) -> int:
    """How many kinds `probate plugins` lists as loaded."""
    command = (PROBATE, "plugins", "--json")
    listed = subprocess.check_output(command, cwd=folder, env=environment(folder))
    return sum(record["status"] == "loaded" for record in json.loads(listed))


def rows() -> list[Row]:
    """All rows of this module."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = loaded_kinds(folder)
        return [
            compare(
                what,
                lambda command=command: seconds(command, folder),  # type: ignore[misc]
                f"python -c '{IMPORTS}'",
                lambda: seconds(PEER, folder),
                target=target,
                pairs=PAIRS,
                note=note,
            )
            for what, command, target, note in (
                ("python -c 'import probate'", (sys.executable, "-c", "import probate"), 0.7, ""),
                ("probate plugins", (PROBATE, "plugins"), 1.3, f"{kinds} kinds loaded"),
            )
        ]


if __name__ == "__main__":
    for row in rows():
        print(
            f"{row.what}: {row.ours * 1e3:.0f} ms, {row.peer}: {row.theirs * 1e3:.0f} ms, "
            f"ratio {row.ratio:.2f} (at most {row.target}) {row.note}"
        )
