"""The command line: options in, exit codes out. Errors are one line; usage errors exit 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from probate.errors import ProbateError
from probate.version import __version__

if TYPE_CHECKING:
    from probate.orchestrator import ResourceOrchestrator


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="probate")
def app() -> None:
    """Settle the estate of dead processes.

    PROBATE_TRACE=1 writes every hook call to standard error.
    """


def _disabled(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(kind.strip() for kind in value.split(",") if kind.strip())


_disable = click.option(
    "--disable",
    metavar="KIND[,KIND...]",
    envvar="PROBATE_DISABLE",
    default="",
    callback=_disabled,
    help="Kinds not to load, or even import; also PROBATE_DISABLE.",
)


@app.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object a plugin.")
@_disable
def plugins(as_json: bool, disable: tuple[str, ...]) -> None:
    """List the plugins found, in cleanup order, and why any is not loaded."""
    records = _discover(disable).records
    if as_json:
        from probate.cli.plain import to_json

        click.echo(to_json(records))
    else:
        from probate.cli.output import print_plugins

        print_plugins(records)


@app.command()
@_disable
def demo(disable: tuple[str, ...]) -> None:
    """Run the main job: processes with real resources of every kind, terminated, accounted for.

    Compares the kernel's view of this process before and after; exits 1 if anything differs.
    """
    from probate.cli.demo import run

    raise SystemExit(run(_discover(disable)))


def _discover(disable: tuple[str, ...]) -> ResourceOrchestrator:
    from probate.cli.tracing import trace_if_asked
    from probate.orchestrator import ResourceOrchestrator

    try:
        orchestrator = ResourceOrchestrator().discover(disable=disable)
    except ProbateError as error:
        raise click.ClickException(str(error)) from error
    trace_if_asked(orchestrator)
    return orchestrator
