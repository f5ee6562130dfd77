"""The repository's documents, and the code blocks in them: found, and run as a reader would.

A page's `python` blocks are programs, each pasted and run by itself. If a `text` block comes next,
after a line that begins with "It prints" or at once, that is what is printed. A `console` block is
what a shell is told after `$`, with what it answers below. In what is printed, `...` stands for
anything.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REPOSITORY = Path(__file__).resolve().parents[2]

#: Where the site is built from.
DOCS: Final = REPOSITORY / "docs"

_BLOCK: Final = re.compile(r"^```([\w-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROGRAM: Final = re.compile(
    r"^```python\n((?:(?!^```).)*?)^```$(?:\n+It prints[^\n]*)?(?:\n+```text\n(.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


class Program(NamedTuple):
    """A program that stands on a page, and what it is said to print."""

    page: Path
    line: int
    text: str
    #: Nothing where the page does not say.
    printed: str | None

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


class Command(NamedTuple):
    """A command of a console on a page, and what it answers."""

    command: str
    answer: str


def pages() -> list[Path]:
    """All pages: of the repository, of each distribution, of the site."""
    return [
        *sorted(REPOSITORY.glob("*.md")),
        REPOSITORY / "core/README.md",
        *sorted(REPOSITORY.glob("plugins/*/README.md")),
        *sorted(DOCS.glob("**/*.md")),
    ]


def name_of(page: Path) -> str:
    """Its path in the repository."""
    return str(page.relative_to(REPOSITORY))


def code_blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return [text for each, text in blocks(path) if each == language]


def blocks(path: Path) -> list[tuple[str, str]]:
    """All fenced blocks with a language, in order: it, and the text."""
    return _BLOCK.findall(path.read_text())


def programs(path: Path) -> list[Program]:
    """The page's programs, in order."""
    text = path.read_text()
    return [
        Program(path, text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for found in _PROGRAM.finditer(text)
    ]


def run_program(
    program: Program, folder: Path, *, python: str = sys.executable, timeout: float = 50
) -> subprocess.CompletedProcess[str]:
    """Paste it into a file in the folder, and run that there; a warning is an error."""
    script = folder / "example.py"
    script.write_text(program.text)
    return subprocess.run(
        [python, "-W", "error", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def check_program(program: Program, folder: Path) -> None:
    """Run it; it succeeds, and prints what its page says."""
    ran = run_program(program, folder)

    assert ran.returncode == 0, f"{program}:\n{ran.stderr}"
    if program.printed is not None:
        assert is_shown(program.printed, ran.stdout), f"{program} prints\n{ran.stdout}{ran.stderr}"


def commands(console: str) -> Iterator[Command]:
    """What a shell is told in such a block; lines that begin with `>` go on with a command."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        first, *lines = part.splitlines()
        told = [first]
        while lines and lines[0].startswith("> "):
            told.append(lines.pop(0).removeprefix("> "))
        yield Command("\n".join(told), "".join(f"{line}\n" for line in lines))


def check_console(
    console: str, folder: Path, *, bin_folder: Path | None = None, env: Mapping[str, str] = {}
) -> None:
    """Tell a shell each command, in the folder; it answers what the page says it does.

    On the path is the bin folder of the environment that is used.
    """
    path = f"{bin_folder or Path(sys.executable).parent}:{os.environ['PATH']}"
    for command, answer in commands(console):
        ran = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env={**os.environ, "PATH": path, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )

        assert is_shown(answer, ran.stdout), f"$ {command}\n{ran.stdout}"


def is_shown(shown: str, printed: str) -> bool:
    """Tell whether this is what a page shows, but for blanks at the ends of lines.

    `...` there stands for anything, or nothing.
    """
    shown, printed = (
        re.sub(r" +$", "", each.strip(), flags=re.MULTILINE) for each in (shown, printed)
    )
    pattern = ".*?".join(re.escape(part) for part in shown.split("..."))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def third_party_plugin(folder: Path) -> Path:
    """Write the third-party plugin of the tutorial as a distribution of its own; its folder."""
    page = DOCS / "tutorial/first-kind.md"
    (folder / "pyproject.toml").write_text(code_blocks(page, "toml")[0])
    [plugin] = [block for block in code_blocks(page, "python") if "def leases()" in block]
    (folder / "acme_leases.py").write_text(plugin)
    return folder


def named_plugin(folder: Path) -> Path:
    """Write the kind of CONTRIBUTING.md whose things have names, as the tutorial's; the folder."""
    metadata = code_blocks(DOCS / "tutorial/first-kind.md", "toml")[0]
    metadata = metadata.replace("acme_leases:leases", "acme_locks:LockResource")
    metadata = metadata.replace("leases", "locks")
    (folder / "pyproject.toml").write_text(metadata)
    blocks = code_blocks(REPOSITORY / "CONTRIBUTING.md", "python")
    [plugin] = [block for block in blocks if "class LockResource" in block]
    (folder / "acme_locks.py").write_text(plugin)
    return folder
