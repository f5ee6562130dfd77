"""What docs/sweeping.md has one write is what systemd, cron and a shell take, and runs."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from documents import REPOSITORY, code_blocks
from systemd_units import check_unit

from probate.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = REPOSITORY / "docs" / "sweeping.md"
SYSTEM_UNITS = "/etc/systemd/system"


@pytest.fixture
def written(tmp_path: Path) -> list[Path]:
    """The units that the page's scripts write, by a user who has `probate` in his path."""
    system = tmp_path / "system"
    system.mkdir()
    scripts = [block for block in code_blocks(PAGE, "sh") if "<<END" in block]
    for script in scripts:
        # Root's go to another place than this machine's.
        run(script.replace(SYSTEM_UNITS, str(system)), HOME=str(tmp_path))
    return sorted([*tmp_path.glob(".config/systemd/user/*"), *system.iterdir()])


def run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What the shell makes of it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-eu", "-c", script],
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )


def parsed(unit: Path) -> configparser.ConfigParser:
    """The sections of a unit (systemd.syntax(7))."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation has it
    parser.read(unit)
    return parser


def commands(written: list[Path]) -> Iterator[list[str]]:
    for unit in written:
        if unit.suffix == ".service":
            yield parsed(unit)["Service"]["ExecStart"].split()


def test_there_is_a_service_for_each_timer(written: list[Path]) -> None:
    """Of the same name, so that one starts the other; each is to be wanted by something."""
    assert [unit.name for unit in written] == [
        "probate-sweep.service",
        "probate-sweep.timer",
        "probate-sweep@.service",
        "probate-sweep@.timer",
    ]
    for unit in written:
        if unit.suffix == ".timer":
            assert parsed(unit)["Install"]["WantedBy"] == "timers.target"
            assert {"OnBootSec", "OnUnitActiveSec"} == set(parsed(unit)["Timer"])
        else:
            assert parsed(unit)["Service"]["SuccessExitStatus"] == "3"


def test_systemd_finds_no_fault_in_them(written: list[Path], tmp_path: Path) -> None:
    """As far as `systemd-analyze verify` looks, where there is one."""
    for unit in written:
        if "@" in unit.name:
            # An instance, as one is enabled.
            unit = unit.rename(unit.with_name(unit.name.replace("@", "@nobody")))  # noqa: PLW2901
        check_unit(unit)


def test_their_commands_exist(written: list[Path], tmp_path: Path) -> None:
    """The program is where it is said to be, and takes these options."""
    found = list(commands(written))
    assert [words[1:] for words in found] == [["sweep"], ["sweep", "--user", "%i"]]
    for program, *words in found:
        assert os.access(program, os.X_OK)
        assert Path(program).is_absolute()
        options = [word for word in words if word.startswith("--")]
        known = {name for each in app.commands[words[0]].params for name in each.opts}
        assert known.issuperset(options)

    state = tmp_path / "state"
    run(f"{found[0][0]} sweep", PROBATE_STATE=str(state))


def test_cron_gets_lines_that_it_takes(tmp_path: Path) -> None:
    """Five fields, or @reboot, and a command that is there; what was in the table stays."""
    (script,) = [block for block in code_blocks(PAGE, "sh") if "crontab -l" in block]
    table = tmp_path / "table"
    table.write_text("# mine\n")
    crontab = tmp_path / "crontab"
    crontab.write_text(f'#!/bin/sh\n[ "$1" = -l ] && exec cat {table}\nexec cat >{table}.new\n')
    crontab.chmod(0o755)
    run(f"PATH={tmp_path}:$PATH\n{script}")

    mine, *lines = Path(f"{table}.new").read_text().splitlines()
    assert mine == "# mine"
    assert len(lines) == 2
    for line in lines:
        found = re.fullmatch(r"(?:@reboot|\*/15 \* \* \* \*) (\S+) sweep >/dev/null", line)
        assert found is not None
        assert os.access(found[1], os.X_OK)


def test_the_entry_point_sweeps_and_becomes_the_program(tmp_path: Path) -> None:
    """With its arguments, and its exit status."""
    (script,) = [block for block in code_blocks(PAGE, "sh") if 'exec "$@"' in block]
    entry = tmp_path / "entry"
    entry.write_text(script)
    entry.chmod(0o755)

    done = run(f"{entry} sh -c 'echo $0 $1' a b", PROBATE_STATE=str(tmp_path / "state"))
    assert done.stdout == "a b\n"
    assert "nothing is left" in done.stderr
