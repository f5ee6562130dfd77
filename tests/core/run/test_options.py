"""What stands before the command, read without click; and what click says of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from probate.run.options import OPTIONS, HelpAskedError, RunOptions, RunUsageError, parse

PROBATE = Path(sys.executable).with_name("probate")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["true"], RunOptions(("true",))),
        (["--", "true"], RunOptions(("true",))),
        # The command's own are its own, and a second -- is, too.
        (["ls", "--grace", "-1"], RunOptions(("ls", "--grace", "-1"))),
        (["--", "--", "x"], RunOptions(("--", "x"))),
        (["--", "--help"], RunOptions(("--help",))),
        (["-", "x"], RunOptions(("-", "x"))),
        (["--grace", "0", "x"], RunOptions(("x",), grace=0.0)),
        (["--grace=2.5", "x"], RunOptions(("x",), grace=2.5)),
        (["--settle", "all", "--isolate", "x"], RunOptions(("x",), settle="all", isolate=True)),
        (["--observe=none", "--", "x"], RunOptions(("x",), observe="none")),
        (["--allow-setuid", "x"], RunOptions(("x",), allow_setuid=True)),
        (["--keep", "/tmp/*", "--keep=b", "x"], RunOptions(("x",), keep=("/tmp/*", "b"))),
        (["--keep=", "x"], RunOptions(("x",), keep=("",))),
        (["--report", "json", "x"], RunOptions(("x",), report="json")),
    ],
)
def test_options_end_where_the_command_begins(arguments: list[str], options: RunOptions) -> None:
    """As with env(1): at --, or at the first word that is no option."""
    assert parse(arguments) == options


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no command to run"),
        (["--isolate", "--"], "there is no command to run"),
        (["--grcae", "1", "x"], "no such option: --grcae; did you mean --grace?"),
        (["-x"], "no such option: -x"),
        (["--grace"], "--grace takes a value: SECONDS"),
        (["--report"], "--report takes a value: text or json"),
        (["--settle=some", "x"], "--settle takes crash, all or report, not 'some'"),
        (["--grace=soon", "x"], "--grace takes seconds, 0 or more, not 'soon'"),
        (["--grace=-1", "x"], "--grace takes seconds, 0 or more, not '-1'"),
        (["--grace=nan", "x"], "not 'nan'"),
        (["--grace", "inf", "x"], "not 'inf'"),
        (["--isolate=yes", "x"], "--isolate takes no value"),
    ],
)
def test_an_error_says_what_is_taken(arguments: list[str], said: str) -> None:
    """Nothing is guessed at."""
    with pytest.raises(RunUsageError) as raised:
        parse(arguments)

    assert said in str(raised.value)


def test_help_is_asked_for_before_the_command_only() -> None:
    """Behind it, it is the command's."""
    for word in ("-h", "--help"):
        with pytest.raises(HelpAskedError):
            parse(["--isolate", word, "true"])
        assert parse(["true", word]).argv == ("true", word)


def test_each_option_is_a_field_and_the_other_way_round() -> None:
    """What can be said can be done."""
    assert {option.field for option in OPTIONS} | {"argv"} == set(RunOptions._fields)


def test_wrong_usage_is_one_line_and_exit_125(tmp_path: Path) -> None:
    """As of timeout(1): no command exits so, and it has not run."""
    proof = tmp_path / "ran"
    ran = subprocess.run(
        [PROBATE, "run", "--grcae", "1", "--", "touch", proof],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stdout) == (125, "")
    assert ran.stderr == (
        "probate: no such option: --grcae; did you mean --grace? (see probate run --help)\n"
    )
    assert not proof.exists()


def test_the_help_is_as_of_the_other_commands() -> None:
    """It is click's, with each option, and `probate --help` lists the command."""
    helped = subprocess.run(
        [PROBATE, "run", "--help"], capture_output=True, text=True, check=True
    ).stdout
    listed = subprocess.run([PROBATE, "--help"], capture_output=True, text=True, check=True).stdout

    assert helped.startswith("Usage: probate run [OPTIONS] [--] COMMAND [ARGUMENT]...\n")
    assert [line for line in helped.splitlines() if len(line) > 80] == []
    for option in OPTIONS:
        assert f"  {option.name} " in helped
    assert "  run " in listed


def test_click_takes_the_same_options(tmp_path: Path) -> None:
    """Where it reads them, as for the completion of a shell, they mean the same."""
    from click.testing import CliRunner

    from probate.cli.app import app

    words = {
        "--grace": ["--grace", "1"], "--settle": ["--settle", "all"], "--isolate": ["--isolate"],
        "--observe": ["--observe", "none"], "--allow-setuid": ["--allow-setuid"],
        "--keep": ["--keep", "a", "--keep", "b"], "--report": ["--report", "json"],
    }  # fmt: skip
    arguments = [word for option in OPTIONS for word in words[option.name]]
    seen: list[RunOptions] = []

    def run_with(options: RunOptions) -> int:
        seen.append(options)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("probate.cli.run.run_with", run_with)
        for each in ([], arguments):
            CliRunner().invoke(app, ["run", *each, "--", "ls", "--all"])
            assert seen.pop() == parse([*each, "--", "ls", "--all"])


def test_a_shell_can_complete_them() -> None:
    """By click's own completion, as that of all commands."""
    done = subprocess.run(
        [PROBATE],
        env={
            "_PROBATE_COMPLETE": "bash_complete",
            "COMP_WORDS": "probate run --settle ",
            "COMP_CWORD": "3",
        },
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["plain,crash", "plain,all", "plain,report"]
