"""What docs/comparison.md says was found by `make litter`, and the command finds it again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from litter.page import BEGIN, PAGE, RESULTS, rendered
from litter.peers import Peers
from litter.results import FAILURES, Cell, Results
from litter.supervisors import SUPERVISORS
from litter.things import LITTER
from litter_table import Wanted, wanted

#: Ordinary files: they stay, and are told.
KEPT = ["pid file", "backing of a map"]


def test_the_page_is_what_the_results_make() -> None:
    """Each figure of it; no supervisor is missing."""
    results = Results.read(RESULTS)
    _, _, tables = PAGE.read_text().partition(BEGIN)

    assert tables.strip() == rendered(results)
    assert {cell.place for cell in results.cells} == {
        (each.name, is_root, failure)
        for each in SUPERVISORS
        for is_root in (True, False)
        for failure in FAILURES
    }


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Some of them renewed, and the others as they were."""
    file = tmp_path / "results.json"
    old = Cell("sh -c", True, "a", left=[*LITTER], seconds=1.0)
    absent = Cell("sh -c", False, "a", why="it is not there")
    Results([old, absent], {"Linux": "6"}).write(file)
    results = Results.read(file)
    assert results == Results([old, absent], {"Linux": "6"})
    new = Cell("sh -c", True, "a", left=["FIFO"], lost=["result"], seconds=0.5)
    results.renew([new])
    results.write(file)

    assert Results.read(file).cells == [new, absent]
    assert "| sh -c | 1, **1 lost** | ? | ? | ? | ? | 0.5 s |" in rendered(results)
    assert "The result is lost by sh -c." in rendered(results)
    assert "| it is not there |" not in rendered(Results([], {}))


def test_we_leave_no_more_than_we_say() -> None:
    """Two ordinary files of 22 kinds, and after a normal end temporary ones; no data is lost."""
    assert len({*LITTER}) == 22
    ours = [cell for cell in Results.read(RESULTS).cells if "probate run" in cell.supervisor]
    assert len(ours) == 3 * 2 * len(FAILURES)
    for cell in ours:
        is_exit = cell.failure == "d" and cell.supervisor == "`probate run`"
        temporary = ["temporary file", "temporary folder"] if is_exit else []
        assert cell.left == [*temporary, *KEPT], cell
        assert cell.lost == [], cell


def test_only_what_is_asked_for_is_run() -> None:
    """By name, with or without failures; a name that there is not is said to be none."""
    users = [True, False] if os.geteuid() == 0 else [False]

    assert wanted("runsv:ab") == [
        Wanted("runsv", is_root, failure) for is_root in users for failure in "ab"
    ]
    assert len(wanted("")) == len(SUPERVISORS) * len(users) * len(FAILURES)
    with pytest.raises(ValueError, match="none of"):
        wanted("no such thing")


@pytest.mark.parametrize(
    ("supervisor", "left"),
    [("sh -c", [*LITTER[1:]]), ("`probate run --settle all`", KEPT)],
    ids=["sh", "probate"],
)
def test_a_cell_is_what_it_was(supervisor: str, left: list[str], tmp_path: Path) -> None:
    """A shell leaves all but main, which was killed; we leave two files, and say so."""
    peers = Peers(tmp_path / "venv", tmp_path / "root")
    cell, said = Wanted(supervisor, os.geteuid() == 0, "a").run(peers)

    assert cell.left == left
    assert cell.lost == []
    if left == KEPT:
        account = json.loads(said)
        kept = [each for each in account["settled"] if each["outcome"] == "refused"]
        assert sorted(Path(each["description"]).name for each in kept) == ["arena", "daemon.pid"]
