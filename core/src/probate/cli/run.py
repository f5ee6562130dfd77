"""`probate run`: a command, with what it leaves given back and accounted for.

It loads neither click nor anything else that takes long: every command that is run waits for it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Final

from probate.run.launching import NOT_STARTED
from probate.run.options import HelpAskedError, RunUsageError, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probate.run.account import RunAccount, SettledThing
    from probate.run.options import RunOptions

_HEADINGS: Final = ("what", "whose#", "evidence", "outcome", "why")


#: What `run_command` returns if its help is to be printed, which click does best.
HELP: Final = -1


def run_command(arguments: Sequence[str]) -> int:
    """Run what stands behind `probate run`; return the exit status, 125 if nothing was started.

    That is HELP if --help stands there.
    """
    try:
        options = parse(arguments)
    except HelpAskedError:
        return HELP
    except RunUsageError as error:
        return _complain(f"{error} (see probate run --help)")
    return run_with(options)


def run_with(options: RunOptions) -> int:
    """Run a command; return its exit status, or 125 if it was not started.

    Does not return if a key of the terminal has ended the command: then this process ends by the
    same signal.
    """
    from probate.errors import ProbateError
    from probate.run.front import run
    from probate.run.signalqueue import die_of

    try:
        ended = run(options)
    except (ProbateError, OSError) as error:
        return _complain(str(error))
    if ended.failure:
        _complain(ended.failure)
    print_account(ended.account, options)
    if ended.key:
        # So a shell that runs a loop ends it as well when somebody presses Ctrl-C.
        die_of(ended.key)
    return ended.code


def print_account(account: RunAccount, options: RunOptions) -> None:
    """Print what was settled on standard error: nothing of nothing, unless that was asked for."""
    if account.is_empty and options.report is None:
        return
    from probate.cli.output import print_table
    from probate.run.account import FEW

    try:
        if options.report == "json":
            print(account.to_json(), file=sys.stderr, flush=True)  # noqa: T201  it is a command's output
            return
        if account.settled or account.is_empty:
            _print(account.summary() or "nothing was left")
        if len(account.settled) > FEW:
            print_table(_HEADINGS, list(map(_cells, account.settled)), file=sys.stderr)
        for note in account.notes:
            _print(note)
    except OSError:
        # Nobody is there any more to be told.
        _say_no_more()


def _cells(thing: SettledThing) -> tuple[str, ...]:
    from probate.run.account import bounded

    whose = "" if thing.os_pid is None else str(thing.os_pid)
    return bounded(thing.description), whose, thing.evidence, thing.outcome, bounded(thing.text)


def _complain(text: str) -> int:
    try:
        _print(text)
    except OSError:
        _say_no_more()
    return NOT_STARTED


def _say_no_more() -> None:
    """Have Python not try again, as it ends, to write what could not be written: exit status 120.

    See sys.exit in Python's documentation.
    """
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _print(text: str) -> None:
    from probate.cli.output import printable

    print(f"probate: {printable(text)}", file=sys.stderr, flush=True)  # noqa: T201  it is a command's output
