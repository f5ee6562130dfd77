"""What ends by itself with the command is let end, and is not said to have been given back."""

from __future__ import annotations

import sys

from runs import RUN, run

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
