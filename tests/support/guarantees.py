"""docs/guarantees.md: its tables as they are read, and its matrix, which is made from them.

python tests/support/guarantees.py      # renews the matrix
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final, NamedTuple

from documents import REPOSITORY

PAGE: Final = REPOSITORY / "docs/guarantees.md"

#: Between these the page has its matrix.
_BEGIN: Final = "<!-- matrix -->"
_END: Final = "<!-- end of matrix -->"

#: Who else may use a thing, in the order of the columns.
SITUATIONS: Final = (
    "nobody", "polled", "blocked", "shared", "wrapped", "closed elsewhere", "successor",
    "loop closed", "views", "attached", "being acquired",
)  # fmt: skip

#: What an account, or an error, says; each with its letter.
LETTERS: Final = {
    "RELEASED": "R",
    "ALREADY_GONE": "A",
    "BUSY": "B",
    "TIMEOUT": "T",
    "FAILED": "F",
    "REFUSED": "X",
    "ProcessTerminatedError": "E",
}

_ROW: Final = re.compile(r"^\| (?!---)([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


class Cell(NamedTuple):
    """One row of one thing's table."""

    thing: str
    #: One of `SITUATIONS`; what follows the colon is left out.
    who: str
    does: str
    says: str
    tests: tuple[str, ...]

    @property
    def letters(self) -> str:
        """What the account may say, by its letters."""
        found = re.findall("|".join(LETTERS), self.says)
        return "".join(dict.fromkeys(LETTERS[each] for each in found))


def cells() -> list[Cell]:
    """All rows of all things' tables."""
    text = PAGE.read_text()
    sections = re.split(r"^### (.+)$", text.partition("## What is not")[0], flags=re.MULTILINE)
    return [
        Cell(thing, who.split(":")[0], does, says, tuple(re.findall(r"`(tests/[^`]+)`", tests)))
        for thing, body in zip(sections[1::2], sections[2::2], strict=True)
        for who, does, says, tests in _ROW.findall(body)[1:]
    ]


class HostRow(NamedTuple):
    """One row of what becomes of things when their host dies."""

    what: str
    tests: tuple[str, ...]


def host_rows() -> list[HostRow]:
    """All rows of both tables of "When a host dies"."""
    section = PAGE.read_text().partition("## When a host dies")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!---)([^|]+) \|.*\| ([^|]+) \|$", section, re.MULTILINE)
    return [
        HostRow(what, tuple(re.findall(r"`(tests/[^`]+)`", tests)))
        for what, tests in rows
        if tests != "tests"
    ]


def matrix() -> str:
    """The letters of all cells, a row for each thing."""
    found: dict[tuple[str, str], str] = {}
    for cell in cells():
        key = (cell.thing, cell.who)
        found[key] = "".join(dict.fromkeys(found.get(key, "") + cell.letters))
    things = dict.fromkeys(thing for thing, _ in found)
    lines = [("", *SITUATIONS), ("---",) * (len(SITUATIONS) + 1)]
    lines += [(each, *(found.get((each, who), "-") for who in SITUATIONS)) for each in things]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def read_matrix() -> str:
    """The matrix that the page has."""
    return PAGE.read_text().partition(_BEGIN)[2].partition(_END)[0].strip() + "\n"


def main() -> int:
    """Put the matrix into the page."""
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    Path(PAGE).write_text(f"{before}{_BEGIN}\n\n{matrix()}\n{_END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
