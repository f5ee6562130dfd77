"""The command line without its libraries: enough to look into an installation.

`probate plugins` into a pipe or a file takes this way even where they are installed: they would
take longer to import than all ten kinds.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from probate.cli.given import Given
    from probate.plugins.fate import DiscoveredPlugin

_HEADINGS = ("kind", "priority", "distribution", "version", "status", "reason")


def can_answer(arguments: Sequence[str]) -> bool:
    """Whether these arguments need no more than there is here."""
    return list(arguments) in (["plugins"], ["plugins", "--json"])


def refuse(missing: str) -> int:
    """Name the extra that `missing` comes with. Returns the exit code."""
    message = (
        f"probate: {missing} is missing: only `probate plugins [--json]` works without the extra; "
        "pip install 'probate[cli]'"
    )
    print(message, file=sys.stderr)  # noqa: T201  it is a command's output
    return 2


def main(arguments: Sequence[str]) -> int:
    """Run `probate plugins [--json]`. Returns the exit code."""
    from probate.cli.given import Given

    # What is loaded here is used once. Looking for garbage in it, most of all when the interpreter
    # ends, would take longer than the loading of most plugins.
    gc.disable()
    try:
        fates = find_plugins(Given())
        print(to_json(fates) if "--json" in arguments else to_text(fates), flush=True)  # noqa: T201  it is a command's output
    except KeyboardInterrupt:
        print("probate: interrupted", file=sys.stderr)  # noqa: T201  it is a command's output
        return 130
    except BrokenPipeError:
        # Whoever reads has seen enough. Python would complain when it flushes once more at its
        # end (Python's documentation of `signal`, "Note on SIGPIPE").
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        gc.freeze()
    return 0


def find_plugins(given: Given) -> list[DiscoveredPlugin]:
    """Load the plugins; return what became of each found, loaded ones in cleanup order.

    Into a registry that settles nothing, so that what settling takes is not loaded.
    """
    from probate.ownership.admission import Admission
    from probate.plugins import discovery
    from probate.plugins.fate import in_order
    from probate.plugins.registry import PluginRegistry

    registry = PluginRegistry(Admission())
    fates = discovery.discover(registry, None, given.disable, given.priorities)
    return in_order(fates, registry.order())


def to_json(fates: Iterable[DiscoveredPlugin]) -> str:
    """The fates as a JSON array of objects, in the order given: as `PluginRecord`s would be."""
    return json.dumps([fate._asdict() for fate in fates], indent=2)


def to_text(fates: Iterable[DiscoveredPlugin]) -> str:
    """The fates as lines of columns, below their headings."""
    rows = [cells(fate) for fate in fates]
    if not rows:
        return "no plugins found: pip install 'probate[all]', or one such as probate-sockets"
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    return "\n".join(_line(row, widths) for row in [_HEADINGS, *rows])


def cells(fate: DiscoveredPlugin) -> tuple[str, ...]:
    """What each column says of it."""
    return (
        fate.kind,
        "" if fate.priority is None else str(fate.priority),
        fate.distribution,
        fate.version,
        fate.status,
        " ".join(fate.reason.split()),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    kind, priority, *others = row
    kind_width, priority_width, *other_widths = widths
    columns = [kind.ljust(kind_width), priority.rjust(priority_width)]
    columns += [cell.ljust(width) for cell, width in zip(others, other_widths, strict=True)]
    return "  ".join(columns).rstrip()
