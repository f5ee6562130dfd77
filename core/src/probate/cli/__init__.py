"""The `probate` command.

app.py        the command line (click)
plain.py      what works without the extra `cli`
output.py     tables (rich)
tracing.py    PROBATE_TRACE
demo/         `probate demo`
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without its libraries, say so, and list the plugins at least."""
    try:
        import click  # noqa: F401  the point is whether it is there
        import rich  # noqa: F401
    except ImportError as error:
        from probate.cli import plain

        sys.exit(plain.main(sys.argv[1:], error.name or "click"))
    from probate.cli.app import app

    app(prog_name="probate")
