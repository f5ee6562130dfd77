"""What the demo shows: a table a process, the account line, the kernel's verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probate.cli.output import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from probate.cli.demo.timing import CleanupTimes
    from probate.models import CleanupResult


def print_result(
    out: Console, name: str, result: CleanupResult, kinds: Sequence[str], times: CleanupTimes
) -> None:
    """Print a process's table, kinds in cleanup order, and its account."""
    made = table("kind", "freed#", "bytes#", "time#", "calls#", "errors#", terminal=out.is_terminal)
    for kind in kinds:
        seen = times.of(result.pid, kind)
        errors = sum(error.kind == kind for error in result.errors)
        made.add_row(
            kind,
            str(seen.freed),
            str(seen.nbytes),
            f"{seen.seconds * 1000:.2f} ms",
            str(seen.calls),
            str(errors),
        )
    out.print(f"\nprocess {result.pid} {name!r}", markup=False)
    out.print(made)
    for error in result.errors:
        out.print(f"  {error}", markup=False, soft_wrap=True)
    if result.leaks:
        out.print(
            f"  ended normally, with {len(result.leaks)} resources never released", markup=False
        )
    out.print(str(result), markup=False, soft_wrap=True)


def print_verdict(out: Console, differences: Sequence[str], looked_at: str) -> None:
    """Print what the kernel says."""
    out.print()
    if differences:
        out.print(f"The kernel says otherwise: {len(differences)} differences", markup=False)
        for line in differences:
            out.print(f"  {line}", markup=False, soft_wrap=True)
    else:
        out.print(f"The kernel agrees, before and after: {looked_at}", markup=False)
