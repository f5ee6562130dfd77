"""The command line without its libraries: enough to look into an installation."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from probate.models import PluginRecord


def main(arguments: Sequence[str], missing: str) -> int:
    """Run `probate plugins [--json]`; for anything else, name the extra. Returns the exit code."""
    if list(arguments) in (["plugins"], ["plugins", "--json"]):
        from probate.orchestrator import ResourceOrchestrator

        records = ResourceOrchestrator().discover().records
        if "--json" in arguments:
            print(to_json(records))  # noqa: T201  it is a command's output
        else:
            for record in records:
                line = f"{record.kind} {record.distribution} {record.version} {record.status}"
                print(f"{line} {record.reason}".rstrip())  # noqa: T201  it is a command's output
        return 0
    message = (
        f"probate: {missing} is missing: only `probate plugins [--json]` works without the extra; "
        "pip install 'probate[cli]'"
    )
    print(message, file=sys.stderr)  # noqa: T201  it is a command's output
    return 2


def to_json(records: Iterable[PluginRecord]) -> str:
    """The records as a JSON array of objects, in the order given."""
    return json.dumps([record.model_dump(mode="json") for record in records], indent=2)
