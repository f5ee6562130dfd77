"""The `probate` command, as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from core_scripts import run_script
from terminals import run_in_terminal

PROBATE = Path(sys.executable).with_name("probate")

#: Runs `probate` where a library of the extra is not installed.
WITHOUT = """
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "{missing}" else find_spec(name)
from probate.cli import main
sys.argv = ["probate", "plugins", "--json"]
main()
"""


def probate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROBATE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_without_a_command_the_commands_are_listed() -> None:
    """It is wrong usage, answered by the help as it is."""
    ran = probate()

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == probate("--help").stdout
    assert ran.stderr.startswith("Usage: probate ")


def test_python_m_probate_is_the_same() -> None:
    """For interpreters whose scripts are not on the path."""
    command = [sys.executable, "-W", "error", "-m", "probate"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    wrong = subprocess.run([*command, "bogus"], capture_output=True, text=True, check=False)

    assert (helped.returncode, helped.stdout) == (0, probate("--help").stdout)
    assert (wrong.returncode, wrong.stderr) == (2, probate("bogus").stderr)


def test_help_and_version() -> None:
    """Every command says what it does, and no line is too long for a terminal."""
    from probate import __version__

    assert __version__ in probate("--version").stdout
    for command in ([], ["demo"], ["new-plugin"], ["plugins"], ["ps"], ["run"]):
        ran = probate(*command, "--help")

        assert ran.returncode == 0
        assert ran.stdout.startswith(" ".join(["Usage: probate", *command]))
        assert [line for line in ran.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["plugins", "--bogus"], "--bogus"),
        (["demo", "surplus"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: list[str], said: str) -> None:
    """What is wrong, and where to read on."""
    ran = probate(*arguments)

    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert said in ran.stderr
    assert "--help" in ran.stderr


@pytest.mark.parametrize("missing", ["click", "pydantic_settings", "rich"])
def test_without_the_extra_the_way_out_is_one_line(missing: str) -> None:
    """It names what is missing and what to install; exit 2."""
    ran = run_script(WITHOUT.format(missing=missing))

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"probate: the command line needs {missing}: pip install 'probate[cli]'\n"


@pytest.mark.parametrize("when", ["every kind", "'crashed' takes", "ends by", "both at once"])
def test_an_interrupt_is_one_word_and_exit_130(when: str) -> None:
    """Ctrl-C anywhere in the demo: to its whole process group, as a terminal sends it."""
    shown = run_in_terminal(
        [PROBATE, "demo"], act=lambda ran: os.killpg(ran.pid, signal.SIGINT), when=when
    )

    assert [line for line in shown.lines if line] == ["probate: interrupted"]
    assert shown.returncode == 130
