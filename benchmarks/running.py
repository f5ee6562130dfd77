"""Running: commands by `probate run`, beside the same without it, in one run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from measure import Row, compare, print_rows
from starting import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PAIRS: Final = 21

#: Of what takes seconds.
FEW_PAIRS: Final = 5

RUN: Final = (str(Path(sys.executable).with_name("probate")), "run", "--")

#: Seconds that `probate run -- true` may take beyond `true`.
MOST_BEYOND: Final = 0.150

SEGMENTS: Final = 3000
SPAWNS: Final = 300
SOURCES: Final = 120

#: Each prints the seconds that its loop takes, without the start of the interpreter.
LOOP: Final = """
import time
{imports}
def turn():
    {turn}
turn()
started = time.perf_counter()
for _ in range({count}):
    turn()
print(time.perf_counter() - started)
"""

SHARED: Final = LOOP.format(
    imports="from multiprocessing.shared_memory import SharedMemory",
    turn="shm = SharedMemory(create=True, size=4096); shm.close(); shm.unlink()",
    count=SEGMENTS,
)
SPAWNING: Final = LOOP.format(
    imports="import subprocess", turn="subprocess.run(['true'], check=True)", count=SPAWNS
)

#: As small as sources are: the compiler reads some headers.
SOURCE: Final = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int f{n}(const char *text) {{
    char *copy = strdup(text);
    int written = printf("%s", copy);
    free(copy);
    return written;
}}
"""


def wall(command: Sequence[str], folder: str) -> float:
    """Run a command to its end; how long it took, by the clock on the wall."""
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, env=_environment(folder))
    return time.perf_counter() - started


def told(command: Sequence[str], folder: str) -> float:
    """Run a command to its end; the seconds that it prints."""
    return float(subprocess.check_output(command, cwd=folder, env=_environment(folder)))


def _environment(folder: str) -> dict[str, str]:
    """With a journal of its own."""
    return {**environment(folder), "PROBATE_STATE": f"{folder}/state"}


def start(folder: str) -> Row:
    """What it costs to be there at all."""
    row = compare(
        "",
        lambda: wall([*RUN, "true"], folder),
        "",
        lambda: wall(["true"], folder),
        pairs=PAIRS,
    )
    beyond = row.ours - row.theirs
    return Row(
        "`probate run -- true`, beyond `true`",
        beyond,
        "at most",
        MOST_BEYOND,
        beyond / MOST_BEYOND,
        target=1.0,
    )


def paired(
    what: str,
    command: Sequence[str],
    folder: str,
    measured: Callable[[Sequence[str], str], float],
    target: float,
) -> Row:
    """One command by `probate run`, and without."""
    return compare(
        f"`probate run`: {what}",
        lambda: measured([*RUN, *command], folder),
        "without",
        lambda: measured(command, folder),
        target=target,
        pairs=FEW_PAIRS,
        warm_up=1,
    )


def rows() -> list[Row]:
    """All rows of this module."""
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder)
        for number in range(SOURCES):
            (sources / f"{number}.c").write_text(SOURCE.format(n=number))
        build = ["sh", "-ec", "for source in *.c; do cc -O1 -c $source; done"]
        python = [sys.executable, "-c"]
        return [
            start(folder),
            paired(f"a build of {SOURCES} files by cc", build, folder, wall, 1.03),
            paired(f"{SEGMENTS} segments of shared memory", [*python, SHARED], folder, told, 3.0),
            paired(f"{SPAWNS} programs, spawned", [*python, SPAWNING], folder, told, 1.15),
        ]


if __name__ == "__main__":
    print_rows(rows())
