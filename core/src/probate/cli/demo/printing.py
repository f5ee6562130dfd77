"""The demo's report for people: on one screen, or all of it."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Final

import click

from probate.cli.output import print_table, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probate.cli.demo.report import DeadHost, DemoReport, EndedProcess, KernelReport

#: Columns that a screen has at most, and at least.
_WIDTH: Final = 100
_NARROWEST: Final = 20

#: How many lines of remarks, errors, or differences, a screen shows.
_FEW: Final = 3


def print_screen(report: DemoReport) -> None:
    """Print what is held, what became of it by kind and process, and what the kernel says."""
    _print_not_loaded(report)
    if report.processes:
        _print_held(report.processes)
        click.echo()
        _print_matrix(report.processes)
    _print_verdict(report, _FEW)


def print_all(report: DemoReport) -> None:
    """Print the whole story: what each process held, its account by kind, the kernel's verdict."""
    kinds = [plugin.kind for plugin in report.plugins if plugin.status == "loaded"]
    click.echo(f"kinds, in cleanup order: {', '.join(kinds) or 'none installed'}")
    _print_not_loaded(report)
    for process in report.processes:
        click.echo(f"\nprocess {process.pid} {process.name!r} holds")
        for lines in process.scenes.values():
            for line in lines:
                click.echo(f"  - {printable(line)}")
        held = [f"{kind} {seen.held}" for kind, seen in process.kinds.items() if seen.held]
        click.echo(f"  in all: {', '.join(held)}")
        click.echo(f"process {process.pid} {process.end}")
    for process in report.processes:
        _print_account(process)
    click.echo()
    _print_verdict(report, None)


def _print_not_loaded(report: DemoReport) -> None:
    for plugin in report.plugins:
        if plugin.status != "loaded":
            _print(f"not loaded: {plugin.kind} ({plugin.reason})")


def _print_held(processes: Sequence[EndedProcess]) -> None:
    first = processes[0]
    *names, last = (each.name for each in processes if each.name != "workers")
    _print(f"{', '.join(names)} and {last} each take this, use it, and give nothing back:")
    width = max(map(len, first.kinds))
    for kind, lines in ((kind, first.scenes.get(kind)) for kind in first.kinds):
        if lines:
            label = f"  {kind:{width}} {first.kinds[kind].held:3}  "
            _print("; ".join(lines), label, " " * len(label))
    if processes[-1].name == "workers":
        _print("workers: an OS process and its double-forked grandchild, at work in shared memory")


def _print_matrix(processes: Sequence[EndedProcess]) -> None:
    results = [each.result for each in processes]
    print_table(
        ["freed of", *(f"{each.name}#" for each in processes)],
        [[kind, *(_cell(each, kind) for each in processes)] for kind in processes[0].kinds],
        [
            ["ended by", *(each.ended_by for each in processes)],
            ["settled in", *(_milliseconds(each.stats.duration_seconds) for each in results)],
            ["resources", *(str(each.stats.resources_freed) for each in results)],
            ["bytes", *(str(each.stats.bytes_freed) for each in results)],
            ["errors", *(str(each.stats.errors_encountered) for each in results)],
        ],
        width=_width(),
    )


def _cell(process: EndedProcess, kind: str) -> str:
    seen = process.kinds[kind]
    return f"{seen.freed}  {_milliseconds(seen.seconds):>8}" if seen.calls else "-"


def _print_account(process: EndedProcess) -> None:
    result = process.result
    click.echo(f"\nprocess {process.pid} {process.name!r}")
    rows = []
    for kind, seen in process.kinds.items():
        errors = sum(error.kind == kind for error in result.errors)
        numbers = (seen.freed, seen.nbytes, _milliseconds(seen.seconds), seen.calls, errors)
        rows.append([kind, *map(str, numbers)])
    headings = ["kind", "freed#", "bytes#", "time#", "calls#", "errors#"]
    print_table(headings, rows, width=_width())
    if result.leaks:
        click.echo(f"  ended normally, with {len(result.leaks)} resources never released")
    click.echo(str(result))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _print_verdict(report: DemoReport, at_most: int | None) -> None:
    if report.kernel is None:
        _print("there is nothing to demonstrate: pip install 'probate[all]'")
        return
    errors = [f"{each.name}: {error}" for each in report.processes for error in each.result.errors]
    _print_some(report.remarks, at_most)
    _print_some(errors, at_most)
    _print_deaths(report.dead_hosts, is_brief=at_most is not None)
    differences = report.kernel.differences
    is_well = report.is_complete and not differences
    verdict = _verdict(report.kernel, is_complete=report.is_complete)
    _print(verdict, colour="green" if is_well else "red")
    _print_some(differences, at_most)
    totals = report.totals
    _print(
        f"{len(report.processes)} processes: {totals.resources_freed} resources, "
        f"{totals.bytes_freed} bytes"
    )


def _print_deaths(hosts: Sequence[DeadHost], *, is_brief: bool) -> None:
    """Print what became of what killed hosts had left: in a line, or in one for each."""
    if is_brief and hosts:
        told = (
            f"{sum(each.kinds.values())} by {each.settler} in {each.seconds:.2f} s"
            for each in hosts
        )
        _print(f"what killed hosts had left was given back: {', '.join(told)}")
    for dead in () if is_brief else hosts:
        kinds = ", ".join(f"{kind} {count}" for kind, count in dead.kinds.items())
        who = "a host" if dead.settler == "its reaper" else "a host and its reaper"
        _print(f"{who}, SIGKILL: {dead.settler} gave back {kinds}, in {dead.seconds:.2f} s")


def _verdict(kernel: KernelReport, *, is_complete: bool) -> str:
    if kernel.differences:
        return f"The kernel says otherwise: {_count(len(kernel.differences), 'difference')}"
    agrees = (
        "The kernel agrees" if is_complete else "Not all was shown; of the rest the kernel agrees"
    )
    return (
        f"{agrees}, before and after: {_count(kernel.fds, 'fd')} "
        f"({_count(kernel.sockets, 'socket')}), {_count(kernel.shared_maps, 'shared map')}, "
        f"{_count(kernel.threads, 'thread')}, all signal dispositions; "
        f"{_count(kernel.files, 'file')} as written"
    )


def _print_some(texts: Sequence[str], at_most: int | None) -> None:
    """Print texts, indented: all of them, or what fits into so many lines, and how many more."""
    left = at_most
    for index, text in enumerate(texts):
        # Whole words can be pasted, and are wider than a screen, some of them.
        lines = _wrapped(text, "  ", "    ", break_long_words=left is not None)
        if left is not None:
            if left <= 0 or (index and len(lines) > left):
                _print(f"and {len(texts) - index} more: probate demo --verbose", "  ")
                return
            if len(lines) > left:
                lines[left - 1 :] = [lines[left - 1][: _width() - 4] + " ..."]
            left -= len(lines)
        click.echo("\n".join(lines))


def _print(text: str, label: str = "", indent: str = "", colour: str | None = None) -> None:
    """Print text after a label, wrapped to the screen."""
    lines = "\n".join(_wrapped(text, label, indent))
    click.echo(click.style(lines, fg=colour) if colour else lines)


def _wrapped(text: str, label: str, indent: str, *, break_long_words: bool = False) -> list[str]:
    return textwrap.wrap(
        printable(text),
        _width(),
        initial_indent=label,
        subsequent_indent=indent,
        break_long_words=break_long_words,
        break_on_hyphens=False,
    )


def _width() -> int:
    columns = shutil.get_terminal_size((_WIDTH, 40)).columns
    return max(_NARROWEST, min(_WIDTH, columns))
