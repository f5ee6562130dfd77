"""What `probate` says of settings: each is named with where it is from, and nothing is ignored
without a word.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from distributions import PLUGIN, install

PROBATE = Path(sys.executable).with_name("probate")


def probate(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command, run in a folder, with no settings in its environment but these."""
    inherited = {key: value for key, value in os.environ.items() if "PROBATE_" not in key.upper()}
    return subprocess.run(
        [PROBATE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**inherited, **variables},
    )


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("plugins", "PROBATE_DISABLE", "mmpa"),
        ("plugins", "PROBATE_DISABLE", '["mmap"]'),
        ("plugins", "PROBATE_PRIORITIES", '{"mmpa": 5}'),
        ("plugins", "PROBATE_LIMITS", '{"by_kind": {"mmpa": {"max_count": 1}}}'),
        ("demo", "PROBATE_LIMITS", '{"by_kind": {"mmpa": {"max_count": 1}}}'),
    ],
)
def test_an_unknown_kind_is_an_error_that_lists_what_there_is(
    tmp_path: Path, command: str, name: str, value: str
) -> None:
    """In every setting: it was accepted, and did nothing."""
    ran = probate(tmp_path, command, **{name: value})

    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1)
    assert "; registered: callbacks, files, " in ran.stderr
    assert f" by {name}; " in ran.stderr
    assert ("separated by commas" in ran.stderr) == ("[" in value)


def test_a_grace_beyond_the_deadline_is_said(tmp_path: Path) -> None:
    """With both variables."""
    ran = probate(tmp_path, "plugins", PROBATE_GRACE="60", PROBATE_DEADLINE="1")

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "settings: a grace of 60.0 seconds is never reached" in ran.stderr
    assert "(PROBATE_GRACE, PROBATE_DEADLINE)" in ran.stderr


@pytest.mark.parametrize("variable", ["PROBATE_DISABLE", "probate_disable"])
def test_variables_are_read_whatever_their_case(tmp_path: Path, variable: str) -> None:
    """`probate plugins` looks itself whether any is set."""
    ran = probate(tmp_path, "plugins", "--json", **{variable: "mmap"})

    assert [each["kind"] for each in json.loads(ran.stdout) if each["status"] == "disabled"] == [
        "mmap"
    ]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_unknown_variable_is_a_line_on_standard_error(
    tmp_path: Path, options: list[str]
) -> None:
    """Whatever filter of warnings there is; our own marks are none."""
    ran = probate(
        tmp_path,
        "plugins",
        *options,
        PROBATE_DISBALE="mmap",
        PROBATE_TREE="1",
        PYTHONWARNINGS="ignore",
    )

    assert ran.returncode == 0
    assert ran.stderr == (
        "probate: PROBATE_DISBALE is no setting, and ignored: did you mean PROBATE_DISABLE?\n"
    )


@pytest.mark.parametrize("name", ["probate.toml", "pyproject.toml"])
def test_a_file_that_others_may_write_is_a_line_on_standard_error(
    tmp_path: Path, name: str
) -> None:
    """It is ignored, whatever is in it."""
    file = tmp_path / name
    file.write_text("disable = ['mmap']\n[tool.probate]\ndisable = ['mmap']\n")
    file.chmod(0o666)
    ran = probate(tmp_path, "plugins", "--json")

    assert [each["kind"] for each in json.loads(ran.stdout) if each["status"] != "loaded"] == []
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith(f"probate: {file} is ignored: ")
    assert ran.stderr.endswith(f"chmod go-w {file}\n")


def test_a_link_to_nothing_is_not_the_same_as_nothing(tmp_path: Path) -> None:
    """`probate plugins` looks itself whether there is a file."""
    (tmp_path / "probate.toml").symlink_to("nowhere")
    ran = probate(tmp_path, "plugins")

    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"{tmp_path / 'probate.toml'} cannot be read: No such file" in ran.stderr


def test_nothing_that_is_said_commands_a_terminal(tmp_path: Path) -> None:
    """Control characters come out in backslashes."""
    (tmp_path / "probate.toml").write_text('"\\u001b[31mgrace" = 1\n')
    ran = probate(tmp_path, "plugins", **{"PROBATE_\x1b[31m": "1"})

    assert ran.returncode == 2
    assert "\x1b" not in ran.stderr
    assert "\\x1b[31mgrace: Extra inputs" in ran.stderr
    assert "PROBATE_\\x1b[31m is no setting" in ran.stderr


@pytest.mark.parametrize(
    ("requires", "source", "status", "code"),
    [
        ("probate>=99", PLUGIN.format(kind="leases", priority=1), "incompatible", 1),
        ("probate>=0.1", "import nowhere", "failed", 1),
        ("probate>=0.1", PLUGIN.format(kind="leases", priority=1), "loaded", 0),
    ],
)
def test_the_exit_code_tells_of_what_cannot_be_used(
    tmp_path: Path, requires: str, source: str, status: str, code: int
) -> None:
    """CI need not read the list; what is disabled is meant to be, and no failure."""
    install(
        tmp_path,
        "acme-leases",
        module="acme_leases",
        source=source,
        entry_points={"leases": "acme_leases:Resource"},
        requires=requires,
    )
    ran = probate(tmp_path, "plugins", "--json", PYTHONPATH=str(tmp_path))
    statuses = {each["kind"]: each["status"] for each in json.loads(ran.stdout)}

    assert (statuses["leases"], ran.returncode) == (status, code)

    without = probate(tmp_path, "plugins", "--disable", "leases", PYTHONPATH=str(tmp_path))

    assert without.returncode == 0
