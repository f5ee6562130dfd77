"""A store that is written to by its log loses nothing, whenever its writer is killed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from probate.journal.loggedstore import LoggedStore
from probate.journal.store import read_rows

if TYPE_CHECKING:
    from pathlib import Path

#: Writes rows for as long as it lives, and deletes every third; says the number of each before and
#: after it is written.
_WRITER = """
import os, sys
from itertools import count
from probate.journal.loggedstore import LoggedStore

store = LoggedStore(sys.argv[1])
for number in count(1):
    os.write(1, b"%d\\n" % number)
    store.put(number, {"number": number, "text": "x" * (number % 300)})
    if number % 3 == 0:
        store.delete(number)
    os.write(1, b"%d\\n" % number)
"""

#: Some seven hundred fill a log.
_LONG = "x" * 300


@pytest.fixture
def store(tmp_path: Path) -> LoggedStore:
    """One to be closed before its rows are read, since LMDB opens a folder once at a time."""
    return LoggedStore(str(tmp_path))


def rows(folder: Path) -> dict[int, Any]:
    return {number: json.loads(row) for number, row in read_rows(str(folder))}


@pytest.mark.parametrize("count", [1, 2000, 8000])
def test_what_was_written_is_there_after_a_kill(tmp_path: Path, count: int) -> None:
    """Each row that a write has returned from, and none of those that were deleted."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        for _ in range(count):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        said = [*range(count), *writer.stdout.read().split()]
    written = len(said) // 2
    found = rows(tmp_path)

    assert [number for number in range(1, written + 1) if number % 3] == [
        number for number in found if number <= written
    ]
    assert all(row == {"number": n, "text": "x" * (n % 300)} for n, row in found.items())
    # What it was just about, may be there or not.
    assert set(found) <= set(range(1, written + 2))


def test_rows_are_read_before_and_after_the_log_was_full(
    store: LoggedStore, tmp_path: Path
) -> None:
    """Some are in the store by then, and one that is there already is replaced, or deleted."""
    for number in range(1, 3001):
        store.put(number, {"text": _LONG})
    store.put(1, {"text": "new"})
    store.delete(2)
    store.close()

    assert rows(tmp_path) == {1: {"text": "new"}, **{n: {"text": _LONG} for n in range(3, 3001)}}


def test_whoever_comes_next_goes_on(store: LoggedStore, tmp_path: Path) -> None:
    """All that was written before it, and what it changes."""
    store.put(1, {"text": "first"})
    store.put(2, {"text": "second"})
    store.close()
    again = LoggedStore(str(tmp_path))
    again.delete(2)
    again.put(3, {"text": "third"})
    again.close()

    assert rows(tmp_path) == {1: {"text": "first"}, 3: {"text": "third"}}


def test_a_row_that_was_not_written_to_its_end_is_none(store: LoggedStore, tmp_path: Path) -> None:
    """Nor is what stood there before the log began anew: its end is behind the last whole row."""
    for number in range(2000):
        store.put(1, {"number": number, "text": _LONG})
    store.close()
    log = tmp_path / "ahead"
    with log.open("r+b") as file:
        file.seek(_end_of(log) + 4)
        file.write(b"half of a row")

    assert rows(tmp_path) == {1: {"number": 1999, "text": _LONG}}


@pytest.mark.parametrize("damage", [b"\xff" * 8, b"s\0\0\0\0"], ids=["nothing", "no JSON"])
def test_a_damaged_log_is_an_error(store: LoggedStore, tmp_path: Path, damage: bytes) -> None:
    """Nothing is made up of what cannot be read, or is no row."""
    store.put(1, {"text": "whole"})
    store.close()
    with (tmp_path / "ahead").open("r+b") as file:
        file.seek(12)
        file.write(damage)

    with pytest.raises(OSError, match="is damaged"):
        rows(tmp_path)


def test_without_room_for_a_log_rows_are_written_all_the_same(tmp_path: Path) -> None:
    """A limit of the size of files is too small for it, and not for a row."""
    program = """
import sys
from probate.journal.loggedstore import LoggedStore

LoggedStore(sys.argv[1]).put(1, {"text": "written"})
"""
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17)),
    )

    assert rows(tmp_path) == {1: {"text": "written"}}


def test_an_old_log_counts_once(store: LoggedStore, tmp_path: Path) -> None:
    """Also where there is no room for a new one: what was written since is newer than it."""
    store.put(1, {"text": "old"})
    store.put(2, {"text": "old"})
    store.close()
    # Somebody has cut it off, behind its rows.
    os.truncate(tmp_path / "ahead", 4096)
    program = """
import sys
from probate.journal.loggedstore import LoggedStore

store = LoggedStore(sys.argv[1])
store.put(1, {"text": "new"})
store.delete(2)
"""
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17)),
    )

    assert rows(tmp_path) == {1: {"text": "new"}}


def _end_of(log: Path) -> int:
    """Return where the next row begins: each is its length and one more, its number, itself."""
    written = log.read_bytes()
    at = 0
    while length := int.from_bytes(written[at : at + 4], "little"):
        at += 12 + length - 1
    return at
