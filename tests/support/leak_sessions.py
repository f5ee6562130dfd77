"""Sessions of pytest within tests, and what they say that their tests have left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Gives back, when all has been judged, what outlives the session.
CONFTEST = """
    import contextlib, undoing

    def pytest_unconfigure():
        with contextlib.ExitStack() as stack:
            for undo in undoing.UNDO:
                stack.callback(undo)
"""


@dataclass
class Session:
    """One session, when it is over."""

    returncode: int
    output: str

    @property
    def left(self) -> dict[str, str]:
        """What each test is said to have left behind, by its name."""
        blocks = re.findall(
            r"^_+ ERROR at teardown of (?:\[doctest\] )?(\S+) _+$\n(.*?)(?=^_{3,} |^={3,} )",
            self.output,
            re.MULTILINE | re.DOTALL,
        )
        return {name: text for name, text in blocks if "left behind" in text}

    @property
    def counts(self) -> dict[str, int]:
        """How many have passed, failed and so on, by the last line."""
        last = self.output.strip().splitlines()[-1]
        return {
            word.rstrip("s"): int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", last)
        }


def write(folder: Path, **files: str) -> None:
    """Write modules, with what takes care of what outlives the session."""
    for name, text in {"undoing": "UNDO = []", "conftest": CONFTEST, **files}.items():
        (folder / f"{name}.py").write_text(dedent(text))


def run(
    folder: Path, *arguments: str, leaks: str = "--probate-leaks", plugins: Iterable[str] = ()
) -> Session:
    """Run the tests of a folder in an interpreter of their own.

    With these of pytest's plugins, by entry point, and ours: all that there are take seconds.
    """
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"}
    given = [leaks] if leaks else []
    given += [word for name in ("probate", *plugins) for word in ("-p", name)]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *given, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    return Session(ran.returncode, ran.stdout + ran.stderr)
