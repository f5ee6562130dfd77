"""Tables for people: plain text where the output is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from probate.cli.plain import cells, to_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probate.plugins.fate import DiscoveredPlugin


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


def print_plugins(fates: Sequence[DiscoveredPlugin]) -> None:
    """Print what became of each plugin found, in the order given."""
    out = console()
    if not out.is_terminal or not fates:
        click.echo(to_text(fates))
        return
    made = table("kind", "priority#", "distribution", "version", "status", "reason", terminal=True)
    for fate in fates:
        made.add_row(*map(escape, cells(fate)))
    out.print(made)
