"""The `probate` command.

app.py        the command line (click)
plain.py      what works without the extra `cli`
given.py      settings, read where there are any
output.py     tables (rich)
ps.py         `probate ps`
tracing.py    the trace of hook calls
demo/         `probate demo`
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

#: What the extra `cli` brings.
_LIBRARIES: Final = ("click", "pydantic_settings", "rich")


def main() -> None:
    """Run the command line; without its libraries, say so, and list the plugins at least.

    An error is one line on standard error: exit 2 for wrong usage, 1 for what went wrong, 130
    when interrupted.
    """
    from probate.cli import plain

    arguments = sys.argv[1:]
    missing = next((name for name in _LIBRARIES if find_spec(name) is None), None)
    if plain.can_answer(arguments) and (missing or _is_plain()):
        sys.exit(plain.main(arguments))
    if missing:
        sys.exit(plain.refuse(missing))
    import click

    from probate.cli.app import app

    try:
        sys.exit(app.main(prog_name="probate", standalone_mode=False))
    except click.UsageError as error:
        hint = f"see {error.ctx.command_path} --help" if error.ctx else "see probate --help"
        click.echo(f"probate: {error.format_message()} ({hint})", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"probate: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("probate: interrupted", err=True)
        sys.exit(130)


def _is_plain() -> bool:
    """Whether there is nobody to draw for, and nothing set."""
    from probate.cli import given

    return not sys.stdout.isatty() and not given.is_anything_set()
