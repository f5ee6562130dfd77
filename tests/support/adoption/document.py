"""docs/adoption.md: its tables, a section for each group, read and written."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

from documents import REPOSITORY

from adoption.trying import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE: Final = REPOSITORY / "docs/adoption.md"

#: Between these the page has its tables.
_BEGIN: Final = "<!-- tables -->"
_END: Final = "<!-- end of tables -->"

_HEAD: Final = (
    "| what | class | taken by | its owner's end; or why it is refused | say instead |\n"
    "|---|---|---|---|---|\n"
)


def read() -> list[Row]:
    """The rows of the page."""
    rows: list[Row] = []
    group = ""
    for line in _tables().splitlines():
        if line.startswith("## "):
            group = line.removeprefix("## ")
        elif line.startswith("| ") and line not in _HEAD:
            name, cls, kind, what, instead = (
                cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]
            )
            rows.append(Row(group, name, cls.strip("`"), kind.strip("-"), what, instead))
    return rows


def write(rows: Sequence[Row]) -> None:
    """Put these rows into the page."""
    groups = itertools.groupby(rows, key=lambda row: row.group)
    text = "\n".join(
        f"## {group}\n\n{_HEAD}{''.join(map(_line, members))}" for group, members in groups
    )
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    figures = rf"\g<1>{len(rows)}\g<2>{sum(bool(row.kind) for row in rows)}\g<3>"
    before = re.sub(r"(makes )\d+( objects .*?)\d+( of them)", figures, before, flags=re.DOTALL)
    PAGE.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}")


def _tables() -> str:
    return PAGE.read_text().partition(_BEGIN)[2].partition(_END)[0]


def _line(row: Row) -> str:
    cells = (row.name, f"`{row.cls}`", row.kind or "-", row.what, row.instead)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"
