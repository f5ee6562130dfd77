"""`probate sweep`: what hosts have left that have died, given back, as JSON or as tables."""

from __future__ import annotations

import json
import os
import pwd
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Final

import click

from probate.cli.output import print_table, printable
from probate.settlement import HostState, forget_row_for, sweep, sweep_for
from probate.settlement import forget_row as forget_one

if TYPE_CHECKING:
    from probate.orchestrator import ResourceOrchestrator
    from probate.settlement import HostAccount

#: How long a command of a host is in a heading, at most.
_COMMAND_WIDTH: Final = 4096


def user_called(name: str) -> pwd.struct_passwd:
    """Find the user to sweep for. Raises UsageError if there is none, or for anybody but root."""
    if os.geteuid() != 0:
        raise click.UsageError(
            f"--user is for root alone, who becomes {printable(name)} for it; as that user, "
            "`probate sweep` does the same"
        )
    try:
        return pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise click.UsageError(f"there is no user {printable(name)}") from None


def print_sweep(
    orchestrator: ResourceOrchestrator,
    user: pwd.struct_passwd | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Sweep, print what was found, and return the exit code."""
    if user is None:
        accounts = sweep(orchestrator, dry_run=dry_run)
    else:
        try:
            accounts = sweep_for(user, orchestrator, dry_run=dry_run)
        except OSError as error:
            raise click.ClickException(f"the sweep for {user.pw_name}: {error}") from error
    # What such a store tells of may be there still.
    states = {account.state for account in accounts}
    is_blind = HostState.UNREADABLE in states
    totals = Counter(str(row.outcome) for account in accounts for row in account.rows)
    if as_json:
        hosts = [account.model_dump(mode="json") for account in accounts]
        click.echo(json.dumps({"hosts": hosts, "totals": totals}, indent=2))
    else:
        for account in accounts:
            _print_host(account)
        what = ", ".join(f"{count} {outcome}" for outcome, count in sorted(totals.items()))
        would = "would be: " if dry_run else ""
        if what:
            click.echo(f"{would}{what}")
        elif states <= {HostState.ALIVE, HostState.SETTLED}:
            click.echo("nothing is left of any host that has died")
    if HostState.BEING_SETTLED in states or any(account.kept for account in accounts):
        return 3
    return 1 if is_blind else 0


def forget_row(row: str, user: pwd.struct_passwd | None) -> None:
    """Drop what was kept under HOST:NUMBER. Raises ClickException if there is no such row."""
    if not (forget_one(row) if user is None else forget_row_for(user, row)):
        raise click.ClickException(
            f"no row {printable(row)} was kept: `probate sweep` prints those that are"
        )
    click.echo(f"forgot {row}; the thing itself was left as it is")


def _print_host(account: HostAccount) -> None:
    if account.state is HostState.ALIVE:
        return
    command = printable(shlex.join(account.command)[:_COMMAND_WIDTH])
    text = f" ({printable(account.text)})" if account.text else ""
    click.echo(f"host {account.pid or account.store}: {account.state}{text}: {command}")
    if account.rows:
        cells = [
            (row.row, row.kind, row.description, str(row.outcome), row.text) for row in account.rows
        ]
        print_table(("row", "kind", "what", "outcome", "why"), cells)
