"""The tables of docs/comparison.md, from the results that are stored beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from documents import REPOSITORY

from litter.results import FAILURES
from litter.supervisors import SUPERVISORS
from litter.things import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from litter.results import Cell, Results

PAGE: Final = REPOSITORY / "docs" / "comparison.md"
RESULTS: Final = REPOSITORY / "docs" / "comparison.json"

#: From here on the page is the command's.
BEGIN: Final = "<!-- tables -->"


def renew(results: Results) -> None:
    """Put the tables into the page."""
    words, begin, _ = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{words}{begin}\n\n{rendered(results)}\n")


def rendered(results: Results) -> str:
    """All that follows the words of the page."""
    return "\n\n".join(
        (
            _table(("", "what happens"), FAILURES.items()),
            "## As root",
            _counts(results, is_root=True),
            "## As an ordinary user",
            _counts(results, is_root=False),
            "## What is left when main was killed, as root",
            _groups(results),
            "## Who they are",
            _purposes(results),
        )
    )


def _counts(results: Results, *, is_root: bool) -> str:
    """How much is left, a row for each supervisor."""
    rows = []
    lost: dict[str, list[str]] = {}
    for supervisor in SUPERVISORS:
        cells = results.of(supervisor.name, is_root=is_root)
        counts = (_count(cells.get(failure)) for failure in FAILURES)
        ran = [cell for cell in cells.values() if cell.left is not None]
        slowest = f"{max(cell.seconds for cell in ran):.1f} s" if ran else ""
        rows.append((supervisor.name, *counts, slowest))
        for thing in {thing for cell in ran for thing in cell.lost}:
            lost.setdefault(thing, []).append(supervisor.name)
    table = _table(("run by", *FAILURES, "until"), rows)
    said = [f"The {thing} is lost by {', and by '.join(names)}." for thing, names in lost.items()]
    return "\n\n".join([table, *sorted(said)])


def _count(cell: Cell | None) -> str:
    if cell is None:
        return "?"
    if cell.left is None:
        return "n/a" if _is_not_applicable(cell) else "absent"
    lost = f", **{len(cell.lost)} lost**" if cell.lost else ""
    return f"{len(cell.left)}{lost}"


def _is_not_applicable(cell: Cell) -> bool:
    return cell.why.startswith("there is none")


def _groups(results: Results) -> str:
    """What is left of each group; those in one row that leave the same."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for supervisor in SUPERVISORS:
        cell = results.of(supervisor.name, is_root=True).get("a")
        if cell is not None and cell.left is not None:
            left = {*cell.left}
            row = tuple(_of(kinds, left) for kinds in GROUPS.values())
            rows.setdefault(row, []).append(supervisor.name)
    return _table(("run by", *GROUPS), [(", ".join(names), *row) for row, names in rows.items()])


def _of(kinds: Sequence[str], left: set[str]) -> str:
    count = len(left.intersection(kinds))
    if count in (0, len(kinds)):
        return "left" if count else ""
    return f"{count} of {len(kinds)}"


def _purposes(results: Results) -> str:
    rows = []
    for supervisor in SUPERVISORS:
        reasons = [
            (cell.is_root, cell.why)
            for is_root in (True, False)
            for cell in results.of(supervisor.name, is_root=is_root).values()
            if cell.left is None and not _is_not_applicable(cell)
        ]
        both = len({is_root for is_root, _ in reasons}) == 2
        said = sorted({why if both or is_root else f"as a user: {why}" for is_root, why in reasons})
        rows.append((supervisor.name, supervisor.purpose, "; ".join(said)))
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return f"{_table(('run by', 'it', 'absent because'), rows)}\n\n{versions}."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
