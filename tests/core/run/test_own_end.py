"""What is left gets time to end by itself, but no more than whoever waits has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from runs import PROBATE, RUN, run

#: Its tracker removes the segment when it sees that the program is gone, with a warning.
FORGETFUL = """
from multiprocessing.shared_memory import SharedMemory
SharedMemory(create=True, size=4096)
"""


def test_a_tracker_removes_what_it_tracks() -> None:
    """As of multiprocessing, which is told of each segment, and outlives the program for that."""
    said = []
    for _ in range(3):
        ran = run((*RUN, sys.executable, "-c"), FORGETFUL)
        assert ran.returncode == 0
        assert b"leaked shared_memory objects" in ran.stderr
        said.append(b"probate: " in ran.stderr)

    # On a busy machine it may take longer than it gets; then it is asked to stop, and does not.
    assert not all(said)


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_whoever_is_impatient_ends_the_grace(name: str) -> None:
    """Ctrl-C, when the command has ended, and what it left does not heed SIGTERM."""
    stubborn = "sh -c 'trap \"echo asked\" TERM; echo looking; while :; do sleep 0.05; done'"
    with subprocess.Popen(
        [PROBATE, "run", "--grace", "600", "sh", "-c", f"{stubborn} & read x; exit 3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as ran:
        assert ran.stdin is not None
        assert ran.stdout is not None
        assert ran.stdout.readline() == b"looking\n"
        ran.stdin.write(b"\n")
        ran.stdin.close()
        # The grace has begun.
        assert ran.stdout.readline() == b"asked\n"
        os.kill(ran.pid, getattr(signal, f"SIG{name}"))

        assert ran.wait(30) == 3
