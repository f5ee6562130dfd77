"""Distributions for tests: wheels, or a module and its metadata in a folder on the path."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Builds all that are named into the first, in one interpreter: as pip would, which takes a start
#: of its own for each.
_BUILD: Final = """
import sys
from hatchling.builders.wheel import WheelBuilder
for project in sys.argv[2:]:
    list(WheelBuilder(project).build(directory=sys.argv[1], versions=["standard"]))
"""

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


def build_wheels(folder: Path, *projects: Path) -> list[Path]:
    """Build a wheel of each project into the folder; return all that are there."""
    subprocess.run([sys.executable, "-c", _BUILD, folder, *projects], check=True, timeout=120)
    return sorted(folder.glob("*.whl"))
