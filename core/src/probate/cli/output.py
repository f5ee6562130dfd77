"""Tables for people: rich at a terminal, columns of plain text elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], totals: Sequence[Sequence[str]] = ()
) -> None:
    """Print `rows` below their headings, and `totals` below a line.

    Columns whose heading ends in # are of numbers, and stand at the right. Elsewhere than at a
    terminal no cell is ever cut or wrapped.
    """
    names = [heading.rstrip("#") for heading in headings]
    are_numbers = [heading.endswith("#") for heading in headings]
    cells = [[printable(cell) for cell in row] for row in rows]
    last = [[printable(cell) for cell in row] for row in totals]
    if sys.stdout.isatty():
        _print_rich(names, are_numbers, cells, last)
        return
    widths = [max(map(len, column)) for column in zip(names, *cells, *last, strict=True)]
    rule = [["-" * width for width in widths]] if last else []
    for line in [names, *cells, *rule, *last]:
        padded = [
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, are_numbers, strict=True)
        ]
        print("  ".join(padded).rstrip())  # noqa: T201  it is a command's output


def printable(text: str) -> str:
    """`text` with whatever a terminal may take for a command in backslashes."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _print_rich(
    names: Sequence[str],
    are_numbers: Sequence[bool],
    rows: Sequence[Sequence[str]],
    totals: Sequence[Sequence[str]],
) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, is_number in zip(names, are_numbers, strict=True):
        table.add_column(name, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    if totals:
        table.add_section()
    for row in totals:
        table.add_row(*map(escape, row))
    Console(highlight=False).print(table)
