"""`probate plugins`: loads no more than it takes to look into an installation."""

from __future__ import annotations

import gc
import json
import os
from typing import TYPE_CHECKING

from probate.cli.output import print_table
from probate.outcome import PluginStatus

if TYPE_CHECKING:
    from probate.plugins.discovered import DiscoveredPlugin
    from probate.settings import Settings


def list_plugins(*, as_json: bool, settings: Settings | None = None) -> int:
    """Print the plugins found, in cleanup order, and why any is not loaded.

    Returns the exit code: 1 if a plugin cannot be used, so that a script need not read the list.
    One that is disabled, or whose kind another one serves, is meant to be left out.
    """
    # What is loaded here is looked at once: to look for garbage in it takes longer than all else.
    gc.disable()
    found = _find(settings)
    gc.freeze()
    if as_json:
        print(json.dumps([each._asdict() for each in found], indent=2))  # noqa: T201  it is a command's output
    elif found:
        headings = ("kind", "priority#", "distribution", "version", "status", "reason")
        print_table(headings, [_cells(each) for each in found])
    else:
        print("no plugins found: pip install 'probate[all]', or one such as probate-sockets")  # noqa: T201  it is a command's output
    unusable = {PluginStatus.FAILED, PluginStatus.INCOMPATIBLE}
    return int(any(each.status in unusable for each in found))


def is_anything_set() -> bool:
    """Tell whether there are settings to read, in the environment or in this folder's files."""
    files = ("probate.toml", "pyproject.toml")
    return any(map(os.path.lexists, files)) or any(
        name.upper().startswith("PROBATE_") for name in os.environ
    )


def _find(settings: Settings | None) -> list[DiscoveredPlugin]:
    """Load the plugins into a registry that ends nothing, and leave out what only an end takes."""
    from probate.ownership.admission import Admission
    from probate.plugins import discovery
    from probate.plugins.registry import PluginRegistry

    registry = PluginRegistry(Admission())
    if settings is None:
        found = discovery.discover(registry)
    else:
        found = discovery.discover(registry, None, settings.disable, settings.priorities)
    return discovery.in_order(found, registry.order())


def _cells(record: DiscoveredPlugin) -> list[str]:
    return [
        record.kind,
        "" if record.priority is None else str(record.priority),
        record.distribution,
        record.version,
        record.status,
        " ".join(record.reason.split()),
    ]
