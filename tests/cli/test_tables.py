"""Tables on narrow screens: in parts below each other, with no number cut."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import terminals
from kinds import KINDS
from terminals import run_in_terminal

from probate.cli.output import print_table

PROBATE = Path(sys.executable).with_name("probate")

HEADINGS = ["name", "first#", "second#", "third#"]
ROWS = [["a name", "1234567", "22", "3"], ["b", "", "", ""]]
TOTALS = [["total", "1234567", "22", "3"]]


def printed(capsys: pytest.CaptureFixture[str], width: int | None) -> list[str]:
    print_table(HEADINGS, ROWS, TOTALS, width=width)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [None, 30])
def test_what_fits_is_one_table(capsys: pytest.CaptureFixture[str], width: int | None) -> None:
    """Without a width, as for a pipe, anything does."""
    assert printed(capsys, width) == [
        "name      first  second  third",
        "a name  1234567      22      3",
        "b",
        "------  -------  ------  -----",
        "total   1234567      22      3",
    ]


def test_what_does_not_fit_goes_on_below(capsys: pytest.CaptureFixture[str]) -> None:
    """Each part with the first column, so that its rows can be told."""
    assert printed(capsys, 29) == [
        "name      first  second",
        "a name  1234567      22",
        "b",
        "------  -------  ------",
        "total   1234567      22",
        "",
        "name    third",
        "a name      3",
        "b",
        "------  -----",
        "total       3",
    ]


def test_each_part_leaves_room_for_the_first_column(capsys: pytest.CaptureFixture[str]) -> None:
    """Which is in all of them."""
    assert [line for line in printed(capsys, 16) if line.startswith("name")] == [
        "name      first",
        "name    second",
        "name    third",
    ]


def test_a_column_that_is_too_wide_by_itself_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """There is no good way to show it."""
    assert "a name  1234567" in printed(capsys, 5)


@pytest.mark.timeout(60)
def test_a_long_table_takes_no_longer_by_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Of all that one OS process holds, say: minutes, where each line looked at all of them."""
    print_table(["name", "bytes#"], [["a", "1"]] * 40_000)

    assert capsys.readouterr().out.count("\n") == 40_001


def test_a_part_in_which_there_is_nothing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Such as the reasons of plugins that are all loaded."""
    print_table(["kind", "status", "reason"], [["mmap", "loaded", ""]], width=12)

    assert capsys.readouterr().out.splitlines() == ["kind  status", "mmap  loaded"]


#: Wider than most screens.
REASON = "a reason that takes more than what is left of one line of it, by far"


def shown_at(columns: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of a table at a terminal."""
    row = ["a kind", "1234 ms", "probate distribution", REASON, "56 ms"]
    script = f"""if True:
        from probate.cli.output import print_table
        print_table(["kind", "number#", "words", "reason", "last#"], [{row!r}])
    """
    monkeypatch.setattr(terminals, "COLUMNS", columns)
    lines = run_in_terminal([sys.executable, "-c", script]).lines

    assert [line for line in lines if len(line) > columns] == []
    return lines


def test_at_a_terminal_the_widest_text_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between words; those of its neighbours stay together."""
    lines = shown_at(60, monkeypatch)
    words = [word for line in lines[3:] for word in line.split()]

    assert lines[2] == "a kind   1234 ms   probate distribution   a reason     56 ms"
    assert " ".join(words) == REASON.removeprefix("a reason ")


def test_numbers_stay_with_their_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """However narrow the terminal is."""
    text = "\n".join(shown_at(30, monkeypatch))

    assert "1234 ms" in text
    assert "56 ms" in text


@pytest.mark.parametrize("columns", [45, 100])
def test_a_narrow_terminal_shows_all_of_the_plugins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, columns: int
) -> None:
    """No word of it cut, as by an ellipsis."""
    monkeypatch.setattr(terminals, "COLUMNS", columns)
    shown = run_in_terminal([PROBATE, "plugins"], cwd=tmp_path)
    names = [line.split()[0] for line in shown.lines if line and "─" not in line]

    assert [line for line in shown.lines if len(line) > columns or "…" in line] == []
    assert [name for name in names if name != "kind"] == KINDS * (2 if columns == 45 else 1)
    assert "probate-scheduler" in shown.written


def test_the_demo_fits_on_a_narrow_screen() -> None:
    """Its table broke; text is wrapped, and each process's column stands by the kinds."""
    ran = subprocess.run(
        [PROBATE, "demo"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "COLUMNS": "40"},
    )
    lines = ran.stdout.splitlines()

    assert ran.returncode == 0, ran.stdout
    assert [line for line in lines if len(line) > 40] == []
    assert [line.split()[2:] for line in lines if line.startswith("freed of")] == [
        ["normal", "crashed"],
        ["twin-1", "twin-2"],
        ["workers"],
    ]
