"""All processes are listed, and then those that have come, quickly where the kernel lets them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from probate.system import Arrivals, arrivals

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["by place", "all"])
def is_by_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """List newer ones from their place in the directory on, and where that is not known."""
    if request.param == "all":
        monkeypatch.setattr(arrivals, "_OFFSETS", range(0))
    arrivals._offset.cache_clear()
    yield request.param == "by place"
    arrivals._offset.cache_clear()


def test_those_who_come_are_listed_until_nobody_does(is_by_place: bool) -> None:
    """One that comes while the others are looked at, and no one twice."""
    listings: list[list[int]] = []
    processes = [waiting()]
    for os_pids in (arrived := Arrivals()):
        if not listings:
            processes.append(waiting())
        listings.append(os_pids)
    for process in processes:
        process.communicate(b"\n")
    before, came = (process.pid for process in processes)
    everyone = [os_pid for os_pids in listings for os_pid in os_pids]

    assert {os.getpid(), before} <= set(listings[0])
    assert came in set(everyone) - set(listings[0])
    assert len(everyone) == len(set(everyone))
    # What else runs on this machine may come and go all the time.
    assert arrived.are_told or len(listings) >= 20


def waiting() -> subprocess.Popen[bytes]:
    """Start a process that waits for a line."""
    return subprocess.Popen([sys.executable, "-SEc", "input()"], stdin=subprocess.PIPE)


def test_a_place_is_known_where_the_kernel_lists_by_it(is_by_place: bool) -> None:
    """By this process's own: so that thousands that nobody has reaped are not listed each time."""
    own = os.getpid()

    if is_by_place:
        assert own in arrivals._pids_above(own - 1)
        assert own not in arrivals._pids_above(own)
    # Else all are listed, rather than none.
    assert own in arrivals._pids_above(0)
    assert is_by_place or own in arrivals._pids_above(own)


def test_pids_that_begin_anew_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest is then not the highest, and nobody is above the highest."""
    whole = [{5, 32767}, {5, 6, 32767}, {5, 6, 7, 32767}, {5, 6, 7, 32767}]
    everyone: set[int] = set()

    def pids_above(pid: int) -> set[int]:
        nonlocal everyone
        if not pid:
            everyone = whole.pop(0)
        return {each for each in everyone if each > pid}

    monkeypatch.setattr(arrivals, "_pids_above", pids_above)

    assert list(Arrivals()) == [[32767, 5], [6], [7]]
