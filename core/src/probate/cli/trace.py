"""`probate trace`: becomes a command whose hook calls are written."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from probate.cli.output import printable
from probate.run.launching import (
    IGNORED_BY_PYTHON,
    NOT_EXECUTABLE,
    NOT_FOUND,
    execute,
    remove_coerced_locale,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def run_traced(argv: Sequence[str], output: str | None) -> int:
    """Become a command with PROBATE_TRACE set, as if nobody stood in between.

    Returns only if it cannot be run: what the shells exit with then. `output` is a file, which is
    made anew; raises UsageError if it cannot be written.
    """
    to = "1"
    if output is not None:
        # Wherever the command goes.
        to = str(Path(output).absolute())
        try:
            Path(to).write_bytes(b"")
        except OSError as error:
            raise click.UsageError(str(error)) from error
    os.environ["PROBATE_TRACE"] = to
    remove_coerced_locale()
    for number in IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        execute(argv)
    except OSError as error:
        click.echo(f"probate: {printable(f'{argv[0]}: {error.strerror}')}", err=True)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
