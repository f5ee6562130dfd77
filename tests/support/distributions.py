"""Installed distributions for tests: a module and its metadata in a folder on the path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: A plugin that works; `{priority}` and `{kind}` are filled in.
PLUGIN = """
from probate import Ordering, OwnershipTable, hookimpl

class Resource:
    def __init__(self):
        self.table = OwnershipTable("{kind}")

    @hookimpl
    def ordering(self):
        return Ordering({priority})

    @hookimpl
    def has_resources(self, pid):
        return pid in self.table

    @hookimpl
    def cleanup(self, pid):
        return self.table.cleanup(pid, lambda resource: None)
"""


def install(
    site: Path,
    name: str,
    *,
    module: str,
    source: str,
    entry_points: Mapping[str, str],
    version: str = "1.0",
    requires: str = "probate>=0.1,<9",
) -> None:
    """Write what pip would have: the module, METADATA and entry_points.txt (PyPA's formats)."""
    (site / f"{module}.py").write_text(source)
    metadata = site / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: {requires}\n"
    )
    lines = [f"{kind} = {value}" for kind, value in entry_points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[probate.resources]", *lines, ""]))
