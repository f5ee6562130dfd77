"""The `probate` command.

app.py        the command line (click)
plain.py      what works without the extra `cli`
output.py     tables (rich)
ps.py         `probate ps`
tracing.py    the trace of hook calls
demo/         `probate demo`
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without its libraries, say so, and list the plugins at least.

    An error is one line on standard error: exit 2 for wrong usage, 1 for what went wrong, 130
    when interrupted.
    """
    try:
        import click
        import pydantic_settings  # noqa: F401  the point is whether it is there
        import rich  # noqa: F401  as above
    except ImportError as error:
        from probate.cli import plain

        sys.exit(plain.main(sys.argv[1:], error.name or "click"))
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
