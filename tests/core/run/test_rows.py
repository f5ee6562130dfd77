"""What is known of things that may have been made: looked for once their call has returned."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from probate.journal.ahead import read_ahead
from probate.journal.folders import HEADER, LOCK, write_json
from probate.journal.loggedstore import LoggedStore
from probate.journal.notice import Notice
from probate.journal.pinned import name_asked_for
from probate.run import rows as module
from probate.run.ending import end_run
from probate.run.facts import RunFacts
from probate.run.options import RunOptions
from probate.run.rows import RunRows
from probate.run.served import ServedRun
from probate.run.watching import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns often, so that they meet."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def test_what_is_not_there_is_let_go_of_when_its_call_has_surely_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is so when its thread has made another; the only call of a thread may be late yet."""
    # However late the first look is, the second is not due with it.
    monkeypatch.setattr(module, "_LOOKS", (0.02, 60.0))
    rows = RunRows()
    owner = rows.owner("command", "key")

    def about_to_make(name: str, tid: int) -> None:
        path = str(tmp_path / name)
        identity = {**name_asked_for(path), "uid": os.geteuid()}
        rows.intend(owner, Notice("open", os.getpid(), path, identity, os.O_EXCL, True), tid=tid)

    about_to_make("gone", 1)
    (tmp_path / "gone").touch()
    about_to_make("late", 2)
    about_to_make("there", 1)
    (tmp_path / "gone").unlink()
    (tmp_path / "there").touch()
    # For the first time, all of them.
    while rows.due < time.monotonic() + 30:
        time.sleep(max(0, rows.due - time.monotonic()))
        rows.look()

    assert _made(rows, owner) == [("late", "intent"), ("there", "confirmed")]


def test_what_a_thread_has_made_and_removed_gives_its_row_to_what_it_makes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop has one row, for whoever comes after as well; what is there keeps its own."""
    monkeypatch.setenv("PROBATE_STATE", str(tmp_path))
    rows = RunRows()
    rows.open(os.getpid())
    assert rows.folder is not None
    owner = rows.owner("command", "key")
    place = tmp_path / "place"
    place.mkdir()

    def make(name: str, tid: int, *, is_noted: bool = True) -> Path:
        path = place / name
        identity = {**name_asked_for(str(path)), "uid": os.geteuid()}
        notice = Notice("open", os.getpid(), str(path), identity, os.O_EXCL, True)
        rows.intend(owner, notice, tid=tid, is_noted=is_noted)
        return path

    def logged() -> list[str]:
        found = [json.loads(row) for row in dict(read_ahead(str(rows.folder))).values() if row]
        return sorted(row["notice"][2].rpartition("/")[2] for row in found if "notice" in row)

    make("another's", 2)
    for turn in range(100):
        path = make(f"turn {turn}", 1)
        assert logged() == ["another's", path.name]
        path.touch()
        path.unlink()
    make("kept", 1).touch()
    # Its name is nobody's any more, and that row another's.
    make("turn 99", 4)
    assert logged() == ["another's", "kept", "turn 99"]
    make("next", 4)
    make("not noted", 1, is_noted=False)

    assert logged() == ["another's", "kept", "next"]
    make("gone", 3)
    make("not noted either", 3, is_noted=False)
    assert logged() == ["another's", "kept", "next"]
    assert [name for name, _ in _made(rows, owner)] == [
        "another's",
        "kept",
        "next",
        "not noted",
        "not noted either",
    ]
    rows.close()


def test_what_cannot_be_looked_at_gives_its_row_to_nothing(tmp_path: Path) -> None:
    """Whoever settles it says why; nor does a queue, which is looked at in another way."""
    rows = RunRows()
    owner = rows.owner("command", "key")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    identity = {**name_asked_for(str(loop / "name")), "uid": os.geteuid()}
    for call, name in (("open", str(loop / "name")), ("mq_open", "/name"), ("open", "/next")):
        rows.intend(owner, Notice(call, os.getpid(), name, identity), tid=1)

    assert [name for name, _ in _made(rows, owner)] == ["name", "name", "next"]


def _made(rows: RunRows, owner: int) -> list[tuple[str, str]]:
    """The names of what was made, and the states of the rows, by name."""
    found = [row for _, row in rows.of(owner) if "notice" in row]
    return sorted((row["notice"][2].rpartition("/")[2], row["state"]) for row in found)


def test_only_what_is_there_is_a_reason_to_load_the_kinds(tmp_path: Path) -> None:
    """To load them takes longer than a compiler, whose files are gone again in a moment."""
    rows = RunRows()
    owner = rows.owner("command", "key")
    path = tmp_path / "made"
    identity = {**name_asked_for(str(path)), "uid": os.geteuid()}
    rows.intend(owner, Notice("open", os.getpid(), str(path), identity, os.O_EXCL, True))
    seen = [rows.has_things()]
    path.touch()
    # From then on it is known to have been made.
    while next(row for _, row in rows.of(owner)[1:])["state"] == "intent":
        rows.look()
        time.sleep(0.01)
    seen += [rows.has_things(), rows.has_things(older_than=60)]
    path.unlink()
    seen.append(rows.has_things())
    # What has gone is not looked for again: this is another.
    path.touch()

    assert [*seen, rows.has_things()] == [False, True, False, False, False]


def test_what_another_command_is_about_to_make_is_not_let_go_of(tmp_path: Path) -> None:
    """When all of a command is looked for, since it has ended, others' calls are under way."""
    rows = RunRows()
    one, other = (rows.owner("command", key) for key in ("one", "other"))
    for owner in (one, other):
        path = str(tmp_path / f"{owner}")
        identity = {**name_asked_for(path), "uid": os.geteuid()}
        rows.intend(owner, Notice("open", os.getpid(), path, identity, os.O_EXCL, True), tid=owner)
    rows.look_last(one)

    assert [len(rows.of(owner)) for owner in (one, other)] == [1, 2]


def test_rows_are_written_by_several_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, often: None
) -> None:
    """Those who serve, and those who settle runs within the run: the log has all of each."""
    monkeypatch.setenv("PROBATE_STATE", str(tmp_path))
    rows = RunRows()
    rows.open(os.getpid())
    assert rows.folder is not None

    def write(number: int) -> None:
        for turn in range(100):
            owner = rows.owner("x" * number, f"{number} {turn}")
            rows.mark_ended(owner)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    # What each number has last: so few do not fill the log.
    logged = dict(read_ahead(str(rows.folder)))
    rows.close()
    found = [json.loads(row) for row in logged.values() if row is not None]

    assert sorted(row["process"]["key"] for row in found) == sorted(
        f"{number} {turn}" for number in range(4) for turn in range(100)
    )
    assert all(row["ended"] for row in found)


def test_runs_within_a_run_give_back_at_once(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, often: None
) -> None:
    """Each on a thread of its own, from one folder: none is in the way of another."""
    monkeypatch.setenv("PROBATE_STATE", str(tmp_path))
    runs = [_served(number) for number in range(4)]
    watch = Watch(runs[0])
    watch.open("")
    ready = threading.Barrier(len(runs))

    def make_and_end(run: ServedRun) -> list[str]:
        path = str(place / run.facts.nonce)
        identity = {**name_asked_for(path), "uid": os.geteuid()}
        watch.rows.intend(run.owner, Notice("mknod", os.getpid(), path, identity), tid=run.owner)
        os.mkfifo(path)
        ready.wait()
        return [each.outcome for each in end_run(run, [], lambda: watch, None).settled]

    for run in runs:
        watch.add(run)
    with ThreadPoolExecutor(len(runs)) as pool:
        for _ in range(10):
            assert [*pool.map(make_and_end, runs)] == [["released"]] * len(runs)
    watch.rows.close()
    for run in runs:
        run.close()


def _served(number: int) -> ServedRun:
    """A run of which nobody is, as its keeper has it."""
    facts = RunFacts.of_this_process(RunOptions((f"command {number}",), grace=0))
    return ServedRun(socket.socket(socket.AF_UNIX), os.pidfd_open(os.getpid()), facts)


@pytest.mark.parametrize("row", [["no row"], {"owner": 1}, {"owner": 1, "notice": 1}])
def test_nobody_goes_on_with_what_cannot_be_read(tmp_path: Path, row: Any) -> None:
    """It is an error that is expected: one that is not would end each keeper that takes over."""
    write_json(tmp_path / HEADER, {})
    (tmp_path / LOCK).touch()
    store = LoggedStore(str(tmp_path))
    store.write(1, row)
    store.close()
    rows = RunRows()

    with pytest.raises(ValueError, match="its rows cannot be read"):
        rows.take_over(tmp_path)
    assert rows.folder is None
