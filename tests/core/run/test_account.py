"""What is said of what was settled."""

from __future__ import annotations

import io
import json
import sys

import pytest

from probate.cli.run import print_account
from probate.run.account import FEW, RunAccount, SettledThing
from probate.run.options import RunOptions

QUIET = RunOptions(("make",))
GONE = SettledThing("memory", "segment /psm_1", 71, "notified", "released")
KEPT = SettledThing("files", "folder /tmp/x", None, "notified", "refused", "--keep")


def said(account: RunAccount, options: RunOptions = QUIET) -> list[str]:
    """The lines on standard error, where that is no terminal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", io.StringIO())
        print_account(account, options)
        assert isinstance(sys.stderr, io.StringIO)
        return sys.stderr.getvalue().splitlines()


def test_nothing_is_said_of_nothing_unless_it_is_asked_for() -> None:
    """A run that left nothing looks as one without us."""
    assert said(RunAccount()) == []
    assert said(RunAccount(), QUIET._replace(report="text")) == ["probate: nothing was left"]
    assert json.loads(said(RunAccount(), QUIET._replace(report="json"))[0]) == {
        "settled": [],
        "notes": [],
    }


def test_few_things_are_a_line_that_names_them() -> None:
    """And says why one is still there."""
    assert said(RunAccount((GONE, KEPT))) == [
        "probate: gave back segment /psm_1; left folder /tmp/x (--keep)"
    ]


def test_many_things_are_a_table() -> None:
    """Of what, whose, on which evidence, what became of it and why."""
    count = FEW + 1
    first, headings, *rows = said(RunAccount((GONE,) * count + (KEPT,)))

    assert first == f"probate: gave back {count} things; left 1 thing"
    assert headings.split() == ["what", "whose", "evidence", "outcome", "why"]
    assert len(rows) == count + 1
    assert rows[0].split() == ["segment", "/psm_1", "71", "notified", "released"]
    assert rows[-1].split() == ["folder", "/tmp/x", "notified", "refused", "--keep"]


def test_notes_are_said_even_where_nothing_was_left() -> None:
    """What could not be seen is no success."""
    assert said(RunAccount(notes=("nobody looked on",))) == ["probate: nobody looked on"]


def test_what_a_program_has_named_is_no_command_to_a_terminal() -> None:
    """Nor is it without end."""
    thing = GONE._replace(description="\x1b]0;x\x07" + "y" * 5000)
    [line] = said(RunAccount((thing,), ()))

    assert line.isprintable()
    assert len(line) < 1500
    [line] = said(RunAccount((thing,), ()), QUIET._replace(report="json"))
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 2500


def test_it_comes_through_json_as_it_was() -> None:
    """From the keeper to the front."""
    account = RunAccount((GONE, KEPT), ("a note", "\udcff"))

    assert RunAccount.from_json(account.to_json()) == account
