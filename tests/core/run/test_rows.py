"""What is known of things that may have been made: looked for once their call has returned."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from probate.journal.folders import HEADER, LOCK, write_json
from probate.journal.loggedstore import LoggedStore
from probate.journal.notice import Notice
from probate.journal.pinned import name_asked_for
from probate.run import rows as module
from probate.run.rows import RunRows

if TYPE_CHECKING:
    from pathlib import Path


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
    about_to_make("late", 2)
    about_to_make("there", 1)
    (tmp_path / "there").touch()
    # For the first time, in the order of the calls.
    while len(names := [row["notice"][2] for _, row in rows.of(owner)[1:]]) == 3:
        time.sleep(max(0, rows.due - time.monotonic()))
        rows.look()

    assert names == [str(tmp_path / "late"), str(tmp_path / "there")]


@pytest.mark.parametrize("row", [["no row"], {"owner": 1}, {"owner": 1, "notice": 1}])
def test_nobody_goes_on_with_what_cannot_be_read(tmp_path: Path, row: Any) -> None:
    """It is an error that is expected: one that is not would end each keeper that takes over."""
    write_json(tmp_path / HEADER, {})
    (tmp_path / LOCK).touch()
    store = LoggedStore(str(tmp_path))
    store.put(1, row)
    store.close()
    rows = RunRows()

    with pytest.raises(ValueError, match="its rows cannot be read"):
        rows.take_over(tmp_path)
    assert rows.folder is None
