"""Run all benchmarks and print one table.

    python benchmarks/run.py [--json FILE] [--plot FILE.png] [--document FILE] [--only NAME ...]

Each module of rows runs in an interpreter of its own, one after the other, so that none finds the
memory that another has left. Ratios are medians of pairs that were measured in turn, in one run;
absolute figures depend on the machine and its mood.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pyperf
from measure import Row, Series

#: Modules of rows, in the order of the table; each has a function `rows`.
MODULES: Final = (
    "closing", "bookkeeping", "scale", "workers", "spawning", "trees", "journal", "starting",
    "running",
    "leaks",
)  # fmt: skip

#: Between these a document has its table.
_BEGIN: Final = "<!-- table -->"
_END: Final = "<!-- end of table -->"

#: Seconds until a module is given up.
PATIENCE: Final = 300


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="what Probate costs, beside its peers")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there, too")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="plot complexity to a PNG")
    parser.add_argument("--document", metavar="FILE", type=Path, help="put the table into it")
    parser.add_argument("--only", nargs="+", choices=MODULES, default=MODULES, metavar="NAME")
    parser.add_argument("--in-here", choices=(*MODULES, "complexity"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_here:
        json.dump(_measured(arguments.in_here), sys.stdout)
        return 0

    if arguments.document is not None and _BEGIN not in arguments.document.read_text():
        parser.error(f"{arguments.document} has no line {_BEGIN} for the table to follow")
    for file in (arguments.json, arguments.plot):
        if file is not None and not file.absolute().parent.is_dir():
            parser.error(f"there is no folder {file.parent} to write {file.name} to")
    started = time.monotonic()
    rows: list[Row] = []
    failed: list[str] = []
    for module in arguments.only:
        print(f"measuring: {module}", file=sys.stderr, flush=True)
        try:
            rows += [Row(**row) for row in _in_another_interpreter(module)]
        except subprocess.SubprocessError as error:
            print(f"{module} failed: {error}", file=sys.stderr)
            failed.append(module)
    series: list[Series] = []
    if arguments.plot is not None:
        print("measuring: complexity", file=sys.stderr, flush=True)
        series = [Series(**each) for each in _in_another_interpreter("complexity")]
        _plot(series, arguments.plot)
    text = f"{table(rows)}\n\n{_machine()}; {time.monotonic() - started:.0f} s in all."
    print(text)
    if arguments.document is not None:
        _put_into(arguments.document, text)
    if arguments.json is not None:
        _write(arguments.json, rows, series)
    return 1 if failed else 0


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    head = ("what", "ours", "peer", "peer's", "ratio", "target", "holds")
    cells = [
        (
            row.what,
            _amount(row.ours, row.unit),
            row.peer,
            _amount(row.theirs, row.unit),
            _ratio(row),
            "" if row.target is None else f"<= {row.target:.2f}",
            {True: "yes", False: "NO", None: ""}[row.holds],
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (head, *cells)) for column in range(len(head))]
    lines = [head, tuple("-" * width for width in widths), *cells]
    padded = (
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(f"| {line} |" for line in padded)


def _ratio(row: Row) -> str:
    if row.quartiles is None:
        return f"{row.ratio:.2f}"
    return f"{row.ratio:.2f} ({row.quartiles[0]:.2f}-{row.quartiles[1]:.2f})"


def _amount(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:,.0f} {unit}".strip()
    for size, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value * 1e9:.3g} ns"


def _measured(name: str) -> list[dict[str, Any]]:
    if name == "complexity":
        return [asdict(series) for series in import_module("scale").complexity()]
    return [asdict(row) for row in import_module(name).rows()]


def _in_another_interpreter(name: str) -> list[dict[str, Any]]:
    argv = [sys.executable, __file__, "--in-here", name]
    done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=PATIENCE, check=True)
    measured: list[dict[str, Any]] = json.loads(done.stdout)
    return measured


def _machine() -> str:
    metadata = _metadata()
    words = (metadata.get(key) for key in ("python_implementation", "python_version"))
    name = " ".join(str(word) for word in words if word)
    return f"{name}, Linux {platform.release()}, {metadata.get('cpu_count', '?')} processors"


def _metadata() -> dict[str, Any]:
    """What pyperf knows of the machine, the interpreter and the load."""
    metadata: dict[str, Any] = pyperf.Run([1.0], collect_metadata=True).get_metadata()
    return metadata


def _write(file: Path, rows: list[Row], series: list[Series]) -> None:
    metadata = {key: str(value) for key, value in _metadata().items()}
    # Names of the machine are nobody's business.
    metadata.pop("hostname", None)
    content = {
        "rows": [{**asdict(row), "holds": row.holds} for row in rows],
        "complexity": [asdict(each) for each in series],
        "environment": metadata,
    }
    file.write_text(json.dumps(content, indent=2) + "\n")


def _put_into(document: Path, text: str) -> None:
    before, _, rest = document.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    document.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}")


def _plot(series: list[Series], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(series), figsize=(5.5 * len(series), 4.2))
    for axis, each in zip(axes, series, strict=True):
        numbers, seconds = zip(*each.points, strict=True)
        axis.loglog(numbers, [value * 1e6 for value in seconds], marker="o", color="#1f4e79")
        axis.set_title(each.title)
        axis.set_xlabel(each.over)
        axis.set_ylabel("one termination, microseconds")
        axis.set_ylim(bottom=1)
        axis.grid(visible=True, which="major", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("What one termination costs")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
