"""`probate trace`: any command, as it is, with its hook calls written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROBATE = Path(sys.executable).with_name("probate")

#: Uses Probate, and says what its surroundings are.
PROGRAM = """
import signal, sys
from probate import ResourceOrchestrator
orchestrator = ResourceOrchestrator().discover(only=["callbacks"])
orchestrator.cleanup_process(1)
print(sys.stdin.read())
"""

#: Which signals are ignored (proc(5)).
IGNORED = "grep SigIgn /proc/self/status"


def trace(
    *arguments: str | Path, typed: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROBATE, "trace", *arguments],
        cwd=cwd,
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_program_is_traced_to_standard_error() -> None:
    """It has its own input and output."""
    ran = trace("--", sys.executable, "-c", PROGRAM, typed="hello")
    lines = ran.stderr.splitlines()

    assert (ran.returncode, ran.stdout) == (0, "hello\n")
    assert "has_resources callbacks pid=1" in lines[1]
    assert all(line.startswith("probate ") for line in lines)


def test_a_file_is_made_anew_wherever_the_program_goes(tmp_path: Path) -> None:
    """Nothing of the trace is on standard error."""
    (tmp_path / "calls").write_text("old\n")
    elsewhere = f"import os; os.chdir('/'); {PROGRAM}"
    ran = trace("-o", "calls", sys.executable, "-c", elsewhere, cwd=tmp_path)
    text = (tmp_path / "calls").read_text()

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "terminate pid=1" in text
    assert "old" not in text


def test_it_exits_as_the_command_does() -> None:
    """By a code, or by a signal."""
    assert trace("sh", "-c", "exit 7").returncode == 7
    assert trace("sh", "-c", "kill -USR1 $$").returncode == -signal.SIGUSR1


def test_the_command_has_the_signals_that_it_would_have() -> None:
    """Python ignores some for itself, and hands none of that on."""
    plain = subprocess.run(["sh", "-c", IGNORED], capture_output=True, text=True, check=True)
    found = [int(each.split()[1], 16) for each in (plain.stdout, trace("sh", "-c", IGNORED).stdout)]

    # But for two of the C library's own, which its posix_spawn ignores (nptl(7)).
    assert len({each & ~(1 << 31 | 1 << 32) for each in found}) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["./no-such-command"], 127, "probate: ./no-such-command: No such file or directory\n"),
        (["/etc"], 126, "probate: /etc: Permission denied\n"),
        ([], 2, "probate: there is no command to run (see probate trace --help)\n"),
        (["-o", "/no/such/folder", "true"], 2, None),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(
    arguments: list[str], code: int, said: str | None
) -> None:
    """With the codes of the shells."""
    ran = trace(*arguments)

    assert ran.returncode == code
    assert len(ran.stderr.splitlines()) == 1
    assert said in (None, ran.stderr)


def test_a_command_without_probate_is_run_as_it_is() -> None:
    """Nothing is written."""
    ran = trace("env")

    assert ran.stderr == ""
    assert "PROBATE_TRACE=1\n" in ran.stdout
    assert os.environ.keys() <= {line.partition("=")[0] for line in ran.stdout.splitlines()}
