"""Finding the ownership tables of a plugin, so that no author has to hand them in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from probate.hookspecs import PROJECT
from probate.ownership.table import OwnershipTable

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How many attributes deep a table may lie: plugin, manager, a part of the manager.
_DEPTH: Final = 4


def find_tables(plugin: object, kind: str) -> list[OwnershipTable[Any]]:
    """Find the tables that `plugin` keeps for `kind`, in order of discovery.

    Looked through: its attributes and its class's, those of objects whose class comes from the
    plugin's own package (its managers), lists, tuples and mappings of such; and among the
    globals of its module, those tables that were made for `kind`.
    """
    package = type(plugin).__module__.partition(".")[0]
    tables: dict[int, OwnershipTable[Any]] = {}
    seen: set[int] = set()

    def visit(value: object, depth: int) -> None:
        if isinstance(value, OwnershipTable):
            tables[id(value)] = value
        elif depth and id(value) not in seen and (value is plugin or not _is_plugin(value)):
            seen.add(id(value))
            for part in _parts(value, package):
                visit(part, depth - 1)

    visit(plugin, _DEPTH)
    module = sys.modules.get(type(plugin).__module__)
    for value in list(vars(module).values()) if module is not None else ():
        if isinstance(value, OwnershipTable) and value.kind == kind:
            tables[id(value)] = value
    return list(tables.values())


def _is_plugin(value: object) -> bool:
    """Whether it is a plugin itself, whose tables are its own."""
    members = (vars(cls).values() for cls in type(value).__mro__)
    return any(hasattr(member, f"{PROJECT}_impl") for each in members for member in each)


def _parts(value: object, package: str) -> Iterable[object]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, type) or type(value).__module__.partition(".")[0] != package:
        return ()
    parts = list(getattr(value, "__dict__", {}).values())
    for cls in type(value).__mro__:
        parts.extend(part for part in vars(cls).values() if isinstance(part, OwnershipTable))
        slots = vars(cls).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            # Private names are stored mangled (reference, "Private name mangling").
            is_private = slot.startswith("__") and not slot.endswith("__")
            name = f"_{cls.__name__.lstrip('_')}{slot}" if is_private else slot
            parts.append(getattr(value, name, None))
    return parts
