"""`probate plugins` without its libraries: the same answers, and little to import."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from core_scripts import run_script
from distributions import install
from kinds import KINDS

from probate import ResourceOrchestrator
from probate.cli.given import is_anything_set

PROBATE = Path(sys.executable).with_name("probate")

#: What `probate plugins` can do without.
HEAVY = ["asyncio", "click", "packaging", "psutil", "pydantic", "pydantic_settings", "rich"]

IMPORTED = """
import sys
from probate.cli import main
sys.argv = ["probate", "plugins"]
try:
    main()
except SystemExit as exit:
    print(exit.code, sorted(set({heavy}) & set(sys.modules)), file=sys.stderr)
"""


def probate(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, run in a folder, with no settings in its environment but these."""
    inherited = {key: value for key, value in os.environ.items() if "PROBATE_" not in key.upper()}
    return subprocess.run(
        [PROBATE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**inherited, **environment},
    )


def disabled(ran: subprocess.CompletedProcess[str]) -> list[str]:
    return sorted(each["kind"] for each in json.loads(ran.stdout) if each["status"] == "disabled")


def test_plugins_imports_nothing_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plugin is loaded, and none of them brings along what it may never need."""
    monkeypatch.chdir(tmp_path)

    ran = run_script(IMPORTED.format(heavy=HEAVY))

    assert ran.stderr == "0 []\n"
    assert [line.split()[0] for line in ran.stdout.splitlines()[1:]] == KINDS


def test_the_list_says_what_the_records_say(tmp_path: Path) -> None:
    """Field by field and in the same order, whichever way it was made."""
    install(
        tmp_path,
        "broken",
        module="broken",
        source="raise OSError('no\\n  disk')",
        entry_points={"broken": "broken:Resource"},
    )
    script = (
        "import json; from probate import ResourceOrchestrator as O; "
        "print(json.dumps([each.model_dump(mode='json') for each in O().discover().records]))"
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    told = subprocess.check_output(
        [sys.executable, "-c", script], env={**os.environ, **environment}, timeout=60
    )

    plainly = probate(tmp_path, "plugins", "--json", **environment)
    by_click = probate(tmp_path, "plugins", "--json", **environment, PROBATE_TRACE="0")
    text = probate(tmp_path, "plugins", **environment)

    assert json.loads(plainly.stdout) == json.loads(told)
    assert by_click.stdout == plainly.stdout
    assert list(json.loads(plainly.stdout)[0]) == list(json.loads(told)[0])
    assert text.stdout.splitlines()[-1].endswith("failed  OSError: no disk")


def test_columns_stand_below_their_headings(tmp_path: Path) -> None:
    """Numbers at the right of theirs; no line ends in blanks."""
    lines = probate(tmp_path, "plugins").stdout.splitlines()
    start = lines[0].index("distribution")

    assert {line[start - 3].isdigit() for line in lines[1:]} == {True}
    assert {line[start:].split("-")[0] for line in lines[1:]} == {"probate"}
    assert [line.rstrip() for line in lines] == lines


@pytest.mark.parametrize("place", ["probate.toml", "pyproject.toml"])
def test_settings_in_files_are_obeyed(tmp_path: Path, place: str) -> None:
    """Whichever file they are in."""
    table = "" if place == "probate.toml" else "[tool.other]\nx = 1\n[tool.probate]\n"
    (tmp_path / place).write_text(f"{table}disable = ['rings', 'mmap']\n")

    assert disabled(probate(tmp_path, "plugins", "--json")) == ["mmap", "rings"]


def test_anothers_pyproject_is_no_setting(tmp_path: Path) -> None:
    """Nothing of ours in it: nothing is set."""
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nprobate = 1\n[project]\nname = 'x'\n")

    assert disabled(probate(tmp_path, "plugins", "--json")) == []


@pytest.mark.parametrize("place", ["probate.toml", "pyproject.toml"])
def test_a_file_that_cannot_be_read_is_one_line_and_exit_2(tmp_path: Path, place: str) -> None:
    """It is not taken for one without settings."""
    (tmp_path / place).write_text("[tool.probate\n")

    ran = probate(tmp_path, "plugins")

    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1


def test_what_is_set_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment in any case, either file; and none of them without any."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("PROBATE_"):
            monkeypatch.delenv(name)

    assert is_anything_set() is False
    with monkeypatch.context() as patch:
        patch.setenv("probate_grace", "1")
        assert is_anything_set() is True
    for file, text in (("pyproject.toml", "tool.probate = {}"), ("probate.toml", "")):
        (tmp_path / file).write_text(text)
        assert is_anything_set() is True
        (tmp_path / file).unlink()


def test_a_reader_who_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """Exit 1 without a word, as click does."""
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [PROBATE, "plugins"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    os.close(writer)

    assert (ran.returncode, ran.stderr) == (1, b"")


def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    """With lines around it; its text is the same."""
    ours, theirs = pty.openpty()
    ran = subprocess.Popen([PROBATE, "plugins"], stdout=theirs, cwd=tmp_path)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 1 << 16):
            shown += part
    except OSError:
        # EIO: the other end has closed (pty(7) on Linux).
        pass
    os.close(ours)

    assert ran.wait(30) == 0
    assert "╭" in shown.decode()
    assert shown.count(b"probate-") == len(KINDS)


def test_nothing_found_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And how to mend it."""
    from probate.cli.given import Given
    from probate.cli.plain import find_plugins, to_json, to_text
    from probate.plugins import discovery

    monkeypatch.setattr(discovery, "scan", list)

    assert ResourceOrchestrator().discover().records == []
    assert to_text(find_plugins(Given())).startswith("no plugins found: pip install")
    assert to_json([]) == "[]"
