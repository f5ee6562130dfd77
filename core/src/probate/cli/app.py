"""The command line: options in, exit codes out. Errors are one line; usage errors exit 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from probate.errors import ProbateError
from probate.version import __version__

if TYPE_CHECKING:
    from probate.cli.given import Given
    from probate.orchestrator import ResourceOrchestrator


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, package_name="probate")
@click.pass_context
def app(context: click.Context) -> None:
    """Settle the estate of dead processes.

    Settings are PROBATE_DISABLE, PROBATE_TRACE and others in the environment, probate.toml, or
    [tool.probate] in pyproject.toml. PROBATE_TRACE=1 writes every hook call to standard error.
    """
    if context.invoked_subcommand is None:
        # Which command is missing takes more than a line to say.
        click.echo(context.get_help(), err=True)
        context.exit(2)


_disable = click.option(
    "--disable",
    metavar="KIND[,KIND...]",
    help="Kinds not to load, or even import; else those that settings name.",
)


@app.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object a plugin.")
@_disable
def plugins(as_json: bool, disable: str | None) -> None:
    """List the plugins found, in cleanup order, and why any is not loaded."""
    from probate.cli.plain import find_plugins, to_json

    try:
        fates = find_plugins(_given(disable))
    except ProbateError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(to_json(fates))
    else:
        from probate.cli.output import print_plugins

        print_plugins(fates)


@app.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object a host.")
def ps(as_json: bool) -> None:
    """List the processes of running hosts: who owns whom, kinds and bytes, use of the machine.

    Asks the hosts of this user; as root, all. A host answers while it supervises OS processes,
    or if it was built with_status().
    """
    from probate.cli.ps import print_hosts, to_json
    from probate.process.status import hosts

    try:
        reports = hosts()
    except OSError as error:
        raise click.ClickException(f"cannot look for hosts here: {error}") from error
    if as_json:
        click.echo(to_json(reports))
    else:
        print_hosts(reports)


@app.command()
@_disable
def demo(disable: str | None) -> None:
    """Run the main job: processes with real resources of every kind, terminated, accounted for.

    Compares the kernel's view of this process before and after; exits 1 if anything differs.
    """
    from probate.cli.demo import run

    raise SystemExit(run(_discover(disable)))


def _discover(disable: str | None) -> ResourceOrchestrator:
    from probate.cli.tracing import trace
    from probate.orchestrator import ResourceOrchestrator

    settings = _given(disable)
    orchestrator = ResourceOrchestrator()
    try:
        orchestrator.discover(disable=settings.disable, priorities=settings.priorities)
    except (ProbateError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    if settings.trace:
        trace(orchestrator)
    return orchestrator


def _given(disable: str | None) -> Given:
    from probate.cli.given import given

    try:
        return given(disable)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
