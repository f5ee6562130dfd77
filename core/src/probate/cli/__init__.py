"""The `probate` command.

app.py     the command line (click)
output.py  tables: rich at a terminal, columns of plain text elsewhere
ps.py      `probate ps`
demo/      `probate demo`
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

#: What the extra `cli` brings.
_LIBRARIES: Final = ("click", "pydantic_settings", "rich")


def main() -> None:
    """Run the command line, and exit.

    An error is one line on standard error: exit 2 for wrong usage and for a missing extra, 1 for
    what went wrong, 130 when interrupted.
    """
    try:
        code, complaint = _run()
    except KeyboardInterrupt:
        code, complaint = 130, "interrupted"
    if complaint:
        print(f"probate: {' '.join(complaint.split())}", file=sys.stderr)  # noqa: T201  it is a command's output
    sys.exit(code)


def _run() -> tuple[int, str]:
    """Return the exit code, and what to complain of; nothing if all is well."""
    missing = next((name for name in _LIBRARIES if find_spec(name) is None), None)
    if missing is not None:
        return 2, f"the command line needs {missing}: pip install 'probate[cli]'"
    import click

    from probate.cli.app import app

    try:
        return app.main(prog_name="probate", standalone_mode=False) or 0, ""
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "probate"
        return error.exit_code, f"{error.format_message()} (see {command} --help)"
    except click.ClickException as error:
        return error.exit_code, error.format_message()
    except click.Abort:
        return 130, "interrupted"
