"""Tables for people: plain text where the output is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probate.models import PluginRecord


def console(*, stderr: bool = False) -> Console:
    """A console that never wraps or colours what a program may read."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal:
        # Wide enough that no cell is ever cut.
        made = Console(stderr=stderr, highlight=False, width=200)
    return made


def table(*headings: str, title: str | None = None, terminal: bool) -> Table:
    """An empty table; headings that end in # are of right-aligned numbers."""
    made = Table(title=title, title_justify="left", box=box.ROUNDED if terminal else None)
    for heading in headings:
        is_number = heading.endswith("#")
        made.add_column(heading.rstrip("#"), justify="right" if is_number else "left")
    return made


def print_plugins(records: Iterable[PluginRecord]) -> None:
    """Print what became of each plugin found, loaded ones in cleanup order."""
    out = console()
    made = table(
        "kind", "priority#", "distribution", "version", "status", "reason", terminal=out.is_terminal
    )
    for record in records:
        made.add_row(
            record.kind,
            "" if record.priority is None else str(record.priority),
            record.distribution,
            record.version,
            record.status,
            record.reason,
        )
    if made.row_count:
        out.print(made)
    else:
        out.print("no plugins found: pip install 'probate[all]', or one such as probate-sockets")
