"""`probate ps`: the processes of all hosts that may be asked, as JSON or as a tree.

With --held, what one OS process holds.
"""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Final

import click

from probate.cli.output import print_table, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from probate.models import ResourceRecord
    from probate.process.status import HostReport, ProcessReport

_HEADINGS: Final = (
    "pid#", "name", "os pid#", "owns", "bytes#", "rss#", "cpu#", "fds#", "threads#",
)  # fmt: skip


#: How deep a table is indented, and how long what others have named is in it, at most: hosts of
#: other users say what they like.
_DEPTH: Final = 32
_WIDTH: Final = 256
_COMMAND_WIDTH: Final = 4096


def to_json(reports: Sequence[HostReport]) -> str:
    """The hosts as a JSON array, each with its processes, oldest first."""
    return json.dumps([report.model_dump(mode="json") for report in reports], indent=2)


def print_hosts(reports: Sequence[HostReport]) -> None:
    """Print a table for each host: those who are owned by another stand below it, indented."""
    if not reports:
        click.echo("no host is running here that supervises processes, or has with_status()")
    for report in reports:
        whose = "" if report.uid in (None, os.geteuid()) else f" (uid {report.uid})"
        command = _cut(shlex.join(report.command), _COMMAND_WIDTH)
        click.echo(f"host {report.os_pid}{whose}: {printable(command)}")
        if report.problem:
            click.echo(f"  {printable(report.problem)}")
        else:
            print_table(_HEADINGS, [_cells(*each) for each in in_tree_order(report.processes)])


def print_held(records: Sequence[ResourceRecord], *, as_json: bool) -> None:
    """Print what an OS process holds, by kind, in the order in which kinds are cleaned."""
    if as_json:
        fields = {"kind", "description", "os_pid", "nbytes", "identity"}
        found = [record.model_dump(mode="json", include=fields) for record in records]
        click.echo(json.dumps(found, indent=2))
        return
    rows = [
        [record.kind, printable(_cut(record.description, _WIDTH)), str(record.nbytes)]
        for record in records
    ]
    print_table(("kind", "holds", "bytes#"), rows)


def in_tree_order(processes: Sequence[ProcessReport]) -> Iterator[tuple[int, ProcessReport]]:
    """Each process with its depth, parents before those whom they own, older before newer."""
    pids = {each.process.pid for each in processes}
    owned: dict[int | None, list[ProcessReport]] = {}
    for each in processes:
        # A parent that has ended meanwhile is not among them.
        parent = each.process.parent if each.process.parent in pids else None
        owned.setdefault(parent, []).append(each)
    to_visit = [(0, each) for each in reversed(owned.get(None, []))]
    while to_visit:
        depth, each = to_visit.pop()
        yield depth, each
        # Each once, though a host may say that several have one pid.
        below = owned.pop(each.process.pid, [])
        to_visit += [(depth + 1, child) for child in reversed(below)]


def _cells(depth: int, report: ProcessReport) -> list[str]:
    process, resources, usage = report.process, report.resources, report.os
    owned = ", ".join(f"{kind} {holding.count}" for kind, holding in resources.items())
    cells = [
        str(process.pid),
        "  " * min(depth, _DEPTH) + process.name,
        "" if process.os_pid is None else str(process.os_pid),
        owned or "nothing",
        str(sum(holding.nbytes for holding in resources.values())),
    ]
    if usage is None:
        cells += ["", "", "", ""]
    else:
        cells += [str(usage.rss), f"{usage.cpu:.2f} s", str(usage.fds), str(usage.threads)]
    return [_cut(cell, _WIDTH) for cell in cells]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
