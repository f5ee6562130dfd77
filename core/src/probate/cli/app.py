"""The command line: options in, exit codes out. Errors are one line; usage errors exit 2."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import click

from probate.cli.listing import list_plugins
from probate.cli.output import printable
from probate.errors import ProbateError, UnknownKindError
from probate.run.options import OPTIONS, RunOptions
from probate.version import __version__

if TYPE_CHECKING:
    from probate.orchestrator import ResourceOrchestrator
    from probate.settings import Settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, package_name="probate")
@click.pass_context
def app(context: click.Context) -> None:
    """Settle the estate of dead processes.

    Settings are PROBATE_DISABLE, PROBATE_TRACE and others in the environment, probate.toml, or
    [tool.probate] in pyproject.toml. PROBATE_TRACE=1 has any program write its hook calls to
    standard error, PROBATE_TRACE=FILE to a file.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False
    if context.invoked_subcommand is None:
        # Which command is missing takes more than a line to say.
        click.echo(context.get_help(), err=True)
        context.exit(2)


_disable = click.option(
    "--disable",
    metavar="KIND[,KIND...]",
    help="Kinds not to load, or even import; else those that settings name.",
)


@app.command(short_help="List the plugins found, in cleanup order.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object a plugin.")
@click.option("--check", metavar="NAME", help="Look for faults of one, and list none.")
@_disable
def plugins(as_json: bool, check: str | None, disable: str | None) -> None:
    """List the plugins found, in cleanup order, and why any is not loaded.

    Exits 1 if any has failed, or is incompatible.

    With --check, looks for what a plugin does wrong although it is loaded: a hook without its
    mark, arguments that no hook gets, a place before kinds that there are not. Nothing of the
    kind is made: `probate.testing` checks that. Exits 1 if anything is found.
    """
    try:
        if check is not None:
            from probate.cli.check import check_plugin

            raise SystemExit(check_plugin(check, as_json=as_json))
        raise SystemExit(list_plugins(as_json=as_json, settings=_settings(disable)))
    except ProbateError as error:
        raise click.UsageError(str(error)) from error


@app.command("new-plugin", short_help="Make the distribution of a kind of your own.")
@click.argument("name")
@click.option("--kind", metavar="KIND", help="The kind's name, if it is not to be NAME.")
def new_plugin(name: str, kind: str | None) -> None:
    """Make the distribution of a kind of your own, in ./NAME.

    It is whole: an entry point, a kind that works, tests by the conformance kit, a README, and CI.
    It can be installed and tested at once. The kind is named like the distribution, without
    `probate-`. Needs the extra `scaffold`: pip install 'probate[scaffold]'.
    """
    import signal
    import sys

    from probate.cli.newplugin import new_plugin

    for number in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_DFL:
            # An exception, by which nothing half made stays.
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    kind = new_plugin(name, kind)
    click.echo(f"made {name}, which serves kind {kind!r}. To try it:")
    click.echo(f"  pip install './{name}[test]' && python -m pytest {name}")
    click.echo(f"To make it your own: {name}/README.md")


@app.command(short_help="List the processes of running hosts.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object a host.")
@click.option(
    "--held", metavar="PID", type=click.IntRange(1), help="List what an OS process holds, instead."
)
@_disable
def ps(as_json: bool, held: int | None, disable: str | None) -> None:
    """List the processes of running hosts: who owns whom, kinds and bytes, use of the machine.

    Asks the hosts of this user; as root, all. A host answers while it supervises OS processes,
    or if it was built with_status(). One that does not is listed with the reason.

    With --held, lists what one OS process holds, whatever its program is: its sockets, files,
    pipes, shared memory, maps and children, as the installed kinds see them from outside.
    """
    from probate.cli.ps import print_held, print_hosts, to_json
    from probate.process.hosts import hosts

    try:
        if held is not None:
            print_held(_discover(_settings(disable)).observe(held), as_json=as_json)
            return
    except OSError as error:
        raise click.ClickException(str(error)) from error
    try:
        reports = hosts()
    except OSError as error:
        raise click.ClickException(f"cannot look for hosts here: {error}") from error
    if as_json:
        click.echo(to_json(reports))
    else:
        print_hosts(reports)


@app.command(short_help="Give back what hosts have left that have died.")
@click.option("--dry-run", is_flag=True, help="Do all but the release itself, and say so.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--forget", metavar="ROW", help="Drop a thing that could not be given back.")
@click.option("--user", metavar="NAME", help="As root: sweep for that user, as that user.")
@_disable
def sweep(
    dry_run: bool, as_json: bool, forget: str | None, user: str | None, disable: str | None
) -> None:
    """Give back what hosts have left by name that have died, and their reapers with them.

    A host's reaper does it at once; this does it for hosts whose reapers have died as well, and
    prints what reapers have done since the last time. What is in use, or not ours, is kept and
    tried again the next time. Looks at the folders of this user: $PROBATE_STATE, else the one
    below /run/user, ~/.local/state/probate, and /tmp/probate-UID-RANDOM.

    Root sweeps for another user by --user: with that user's folders, and rights.

    Exits 3 if anything is kept, or somebody else is just giving it back.
    """
    from probate.cli.sweep import forget_row, print_sweep, user_called

    whose = None if user is None else user_called(user)
    if forget is not None:
        forget_row(forget, whose)
        return
    orchestrator = _discover(_settings(disable))
    raise SystemExit(print_sweep(orchestrator, whose, dry_run=dry_run, as_json=as_json))


@app.command(short_help="Run the main job on real resources, and ask the kernel.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Print what each process held, and its account."
)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as a JSON object.")
@_disable
def demo(verbose: bool, as_json: bool, disable: str | None) -> None:
    """Run the main job: processes with real resources of every kind, terminated, accounted for.

    Compares the kernel's view of this process before and after; exits 1 if anything is left, an
    account has errors, or there is not enough of something to show all.
    """
    from probate.cli.demo import DemoError, print_all, print_screen, run

    settings = _settings(disable)
    orchestrator = _discover(settings)
    try:
        report = run(orchestrator, progress=not settings.trace)
    except DemoError as error:
        if verbose:
            click.echo(error.where, err=True, nl=False)
        hint = " (--verbose says where)" if error.where and not verbose else ""
        raise click.ClickException(f"{error}{hint}") from error
    if as_json:
        click.echo(report.model_dump_json(indent=2))
    elif verbose:
        print_all(report)
    else:
        print_screen(report)
    raise SystemExit(not report.is_success)


@app.command(
    short_help="Run any command, and give back what it leaves.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("argv", metavar="[--] COMMAND [ARGUMENT]...", nargs=-1, type=click.Path())
def run(argv: tuple[str, ...], **values: Any) -> None:
    """Run any command, and give back what it leaves when it ends, however it does.

    Its processes, and what they have made by name and not given back: shared memory, semaphores,
    message queues, unix sockets, FIFOs, and temporary files after an abnormal end. Never what is
    in use, what others have made, or data. What was given back, and what was left and why, is
    told on standard error; nothing is told of nothing.

    The command has the very streams, terminal and signals that it would have. Exits as the
    command does, with 128 and the number of the signal that ended it, 127 if there is no such
    command, 126 if it cannot be run, and 125 if it was not started for another reason.
    """
    from probate.cli.run import run_with

    if not argv:
        raise click.UsageError("there is no command to run")
    raise SystemExit(run_with(RunOptions(argv, **values)))


run.params += [
    click.Option(
        [each.name],
        metavar=each.metavar or None,
        is_flag=each.is_flag,
        type=click.Choice(each.choices) if each.choices else None,
        multiple=each.may_repeat,
        help=each.help,
        # What is not said is what RunOptions has.
        default=getattr(RunOptions(()), each.field),
    )
    for each in OPTIONS
]


@app.command(
    short_help="Run any command, and write its hook calls.",
    context_settings={"allow_interspersed_args": False},
)
@click.option("-o", "--output", metavar="FILE", help="Write to FILE, not to standard error.")
@click.argument("argv", metavar="[--] COMMAND [ARGUMENT]...", nargs=-1, type=click.Path())
def trace(argv: tuple[str, ...], output: str | None) -> None:
    """Run any command with PROBATE_TRACE set: whatever in it uses Probate writes its hook calls.

    Two lines a call, one when it begins and one when it ends: of which process and thread, which
    hook of which kind, for which pid, and what it returned or raised, and how long it took.
    Indented below the call or termination that it is part of.

    The command takes the place of this one, with the very streams and signals, and so exits as it
    does; 127 if there is no such command, 126 if it cannot be run. A program in Python is run by
    `probate trace -- python PROGRAM`.
    """
    from probate.cli.trace import run_traced

    if not argv:
        raise click.UsageError("there is no command to run")
    raise SystemExit(run_traced(argv, output))


def _settings(disable: str | None) -> Settings:
    """Read the settings; `disable`, kinds separated by commas, takes the place of theirs."""
    from probate.settings import Settings, SettingsError, SettingsWarning, split_kinds

    with warnings.catch_warnings(record=True) as ignored:
        warnings.simplefilter("always", SettingsWarning)
        try:
            settings = Settings() if disable is None else Settings(disable=split_kinds(disable))
            settings.check_installed()
        except SettingsError as error:
            raise click.UsageError(f"settings: {error}") from error
        except UnknownKindError as error:
            raise click.UsageError(str(error)) from error
        finally:
            for each in ignored:
                click.echo(f"probate: {printable(str(each.message))}", err=True)
    return settings


def _discover(settings: Settings) -> ResourceOrchestrator:
    from probate.orchestrator import ResourceOrchestrator, registry_of

    try:
        orchestrator = ResourceOrchestrator().discover(
            disable=settings.disable, priorities=settings.priorities
        )
    except (ProbateError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    registry_of(orchestrator).plugin_manager.trace_calls(settings.trace)
    return orchestrator
