"""All cases, group by group, in the order of the table."""

from __future__ import annotations

import importlib
from typing import Final

from adoption.case import CASES as NOTED

for _name in (
    "sockets", "loops", "files", "numbers", "databases", "memory", "processes", "plain",
    "libraries", "async",
):  # fmt: skip
    importlib.import_module(f"adoption.objects_{_name}")

_GROUPS: Final = list(dict.fromkeys(each.group for each in NOTED))

CASES: Final = sorted(NOTED, key=lambda each: _GROUPS.index(each.group))
