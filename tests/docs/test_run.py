"""What docs/run.md says of `probate run` is so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import REPOSITORY, code_blocks

from probate.run.options import OPTIONS, parse

PAGE = REPOSITORY / "docs" / "run.md"
BIN = Path(sys.executable).parent


def shell(script: str, *, name: str = "sh") -> subprocess.CompletedProcess[str]:
    """What a shell makes of it, with `probate` in its path."""
    return subprocess.run(
        [name, "-c", script],
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_the_example_gives_back_what_it_says() -> None:
    """It runs as it stands, and says what the page says, but for the pid."""
    [script] = [block for block in code_blocks(PAGE, "sh") if "example-fifo" in block]
    [said] = [block for block in code_blocks(PAGE, "text") if "example-fifo" in block]
    # Its name is this test's own: others may run it as well.
    name = f"example-fifo-{os.getpid()}"
    ran = shell(script.replace("example-fifo", name))

    assert (
        re.sub(r"\d+ \(sleep\)", "4711 (sleep)", ran.stderr).replace(name, "example-fifo") == said
    )
    assert not Path(f"/tmp/{name}").exists()
    assert ran.returncode == 137


def test_the_example_in_python_gives_back_what_it_says() -> None:
    """The account names what it was."""
    [script] = code_blocks(PAGE, "python")
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50
    )

    assert re.search(r"gave back what it had left by name: FIFO /tmp/example-\d+$", ran.stdout)


def test_each_option_is_described_as_it_is_taken() -> None:
    """With each value that it takes, and no other."""
    described = re.findall(r"^\| `(--[^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    expected = []
    for option in OPTIONS:
        if option.choices:
            # The default does not say what to do else.
            expected += [f"{option.name} {value}" for value in option.choices if value != "auto"]
        else:
            expected.append(f"{option.name} {option.metavar}".rstrip())
    assert described == expected
    for each in described:
        words = each.replace("SECONDS", "2").split()
        assert parse([*words, "true"]).argv == ("true",)


def test_the_other_examples_are_understood() -> None:
    """As far as they are ours."""
    [script] = [block for block in code_blocks(PAGE, "sh") if "make -j8" in block]
    for line in script.splitlines():
        words = line.split()

        assert words[:2] == ["probate", "run"]
        assert parse(words[2:]).argv[0] in {"make", "python", "./integration-tests"}


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_is_set_up_as_written(name: str) -> None:
    """The shell takes it without a word of complaint."""
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    [script] = [block for block in code_blocks(PAGE, "sh") if f"{name}_source" in block]
    ran = shell(script, name=name)

    assert (ran.returncode, ran.stderr) == (0, "")
