"""The trail through the code is one that calls really take."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, NamedTuple

from documents import REPOSITORY

if TYPE_CHECKING:
    from types import FrameType

    from probate import ResourceOrchestrator

TRAIL = (REPOSITORY / "docs/trail.md").read_text()


class Stop(NamedTuple):
    """One line of the trail's table."""

    package: str
    file: str
    function: str


STOPS = [
    Stop(*each)
    for each in re.findall(r"^\| ([\w ]+) \| `([^`]+)` \| `(\w+)` \|", TRAIL, re.MULTILINE)
]


def test_the_trail_goes_through_five_packages_and_never_back() -> None:
    """A newcomer holds five packages in the head, if each is left once."""
    packages = [stop.package for stop in STOPS]
    entered = [
        package
        for number, package in enumerate(packages)
        if number == 0 or packages[number - 1] != package
    ]

    assert len(entered) == len(set(entered)) <= 5
    assert (STOPS[0].file, STOPS[-1].function) == ("core/src/probate/orchestrator.py", "release")


def test_every_file_of_the_trail_exists_with_its_function() -> None:
    """Those of the table, and those that the text names."""
    for file in re.findall(r"`((?:core|plugins)/[\w/.]+\.py)`", TRAIL):
        assert (REPOSITORY / file).exists(), file
    for stop in STOPS:
        text = (REPOSITORY / stop.file).read_text()
        assert re.search(rf"def {stop.function}\(", text), stop


def test_the_calls_of_a_real_end_pass_by_every_stop(orchestrator: ResourceOrchestrator) -> None:
    """In the order of the table, as the interpreter sees them."""
    sockets = orchestrator["sockets"].manager
    sockets.listen_tcp(1, ("127.0.0.1", 0))
    calls: list[tuple[str, str]] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls.append((frame.f_code.co_filename, frame.f_code.co_name))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        orchestrator.cleanup_process(1, grace=0)
    finally:
        sys.setprofile(before)
    remaining = iter(calls)

    for stop in STOPS:
        assert any(
            file.endswith(stop.file) and function == stop.function for file, function in remaining
        ), stop
