"""Try all that may be adopted, and renew the tables of docs/adoption.md.

    python tests/support/adoption_table.py

Rows of libraries that are not installed stay as they are, and are named.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

from adoption import document
from adoption.every import CASES
from adoption.trying import tried

from probate import ProcessManager


def main() -> int:
    """Renew the page; return 1, and leave it as it is, if a promise does not hold."""
    known = {(row.group, row.name): row for row in document.read()}
    rows = []
    for case in CASES:
        if case.library and importlib.util.find_spec(case.library) is None:
            print(f"not installed: {case.library}", file=sys.stderr)
            rows += [row for key, row in known.items() if key == (case.group, case.name)]
            continue
        builder = ProcessManager.builder().with_grace(0).with_deadline(10)
        with tempfile.TemporaryDirectory() as folder, builder.build() as manager:
            try:
                rows.append(tried(case, manager, Path(folder)))
            except AssertionError as error:
                print(f"{case.group}: {case.name}: {error!r}", file=sys.stderr)
                return 1
    document.write(rows)
    print(f"{len(rows)} rows, of which {sum(bool(row.kind) for row in rows)} are taken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
