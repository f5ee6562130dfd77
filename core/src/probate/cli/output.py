"""Tables for people: rich at a terminal, columns of plain text elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

#: What stands between two columns: of plain text, and at a terminal.
_GAP = "  "
_RICH_GAP = "   "


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    totals: Sequence[Sequence[str]] = (),
    *,
    width: int | None = None,
    file: TextIO | None = None,
) -> None:
    """Print `rows` below their headings, and `totals` below a line, to `file` or standard output.

    Columns whose heading ends in # are of numbers, and stand at the right. What is wider than the
    terminal, or than `width` elsewhere, is printed in parts below each other, each with the first
    column; no number is ever cut or wrapped, and elsewhere no cell is.
    """
    columns = [
        _Column(heading.rstrip("#"), heading.endswith("#"), list(map(printable, cells)))
        for heading, *cells in zip(headings, *rows, *totals, strict=True)
    ]
    file = sys.stdout if file is None else file
    is_terminal = file.isatty() and find_spec("rich") is not None
    if is_terminal:
        width = _width_of(file)
    for index, part in enumerate(_parts(columns, width, can_wrap=is_terminal)):
        if index:
            print(file=file)
        if is_terminal:
            _print_rich(_wrapped(part, width), len(rows), file)
        else:
            _print_plain(part, len(rows), file)


def printable(text: str) -> str:
    """`text` with whatever a terminal may take for a command in backslashes."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _width_of(file: TextIO) -> int:
    """Return how many columns a terminal has; COLUMNS in the environment goes before."""
    if file is sys.stdout or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return os.get_terminal_size(file.fileno()).columns or 80


@final
class _Column(NamedTuple):
    heading: str
    is_number: bool
    #: From the first row to the last total.
    cells: list[str]

    @property
    def width(self) -> int:
        return max(map(len, [self.heading, *self.cells]))

    @property
    def least_width(self) -> int:
        """What it takes where words may be wrapped."""
        if self.is_number:
            return self.width
        return max(len(word) for each in [self.heading, *self.cells] for word in each.split())

    def wrapped_at(self, width: int) -> _Column:
        heading, *cells = (
            "\n".join(wrap(each, width, break_long_words=False, break_on_hyphens=False))
            for each in [self.heading, *self.cells]
        )
        return self._replace(heading=heading, cells=cells)


def _parts(
    columns: Sequence[_Column], width: int | None, *, can_wrap: bool
) -> Iterator[list[_Column]]:
    """Split columns so that each part, the first of them included, is within `width`.

    Where that takes several parts, one in which there is nothing is left out.
    """
    first, *others = columns
    parts: list[list[_Column]] = [[]]
    used = first.width
    for each in others:
        needed = len(_RICH_GAP) + each.least_width if can_wrap else len(_GAP) + each.width
        if width is not None and used + needed > width:
            parts.append([])
            used = first.width
        parts[-1].append(each)
        used += needed
    for part in parts:
        if len(parts) == 1 or any(cell for each in part for cell in each.cells):
            yield [first, *part]


def _wrapped(columns: list[_Column], width: int | None) -> list[_Column]:
    """Wrap the texts of the widest columns, until all of them are within `width`."""
    wrapped = list(columns)
    excess = (
        sum(each.width for each in columns) + len(_RICH_GAP) * (len(columns) - 1) - (width or 0)
    )
    for index, each in sorted(enumerate(columns), key=lambda item: -item[1].width):
        less = min(excess, each.width - each.least_width)
        if index and less > 0:
            wrapped[index] = each.wrapped_at(each.width - less)
            excess -= less
    return wrapped


def _print_plain(columns: Sequence[_Column], row_count: int, file: TextIO) -> None:
    widths = [each.width for each in columns]

    def print_line(cells: Sequence[str]) -> None:
        padded = [
            cell.rjust(width) if each.is_number else cell.ljust(width)
            for cell, each, width in zip(cells, columns, widths, strict=True)
        ]
        print(_GAP.join(padded).rstrip(), file=file)

    print_line([each.heading for each in columns])
    for index, cells in enumerate(zip(*(each.cells for each in columns), strict=True)):
        if index == row_count:
            print_line(["-" * width for width in widths])
        print_line(cells)


def _print_rich(columns: Sequence[_Column], row_count: int, file: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for each in columns:
        table.add_column(each.heading, justify="right" if each.is_number else "left")
    for index, cells in enumerate(zip(*(each.cells for each in columns), strict=True)):
        if index == row_count:
            table.add_section()
        table.add_row(*map(escape, cells))
    Console(file=file, highlight=False).print(table)
