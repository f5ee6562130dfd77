"""Finds the ownership tables of a plugin, so that no author has to register them."""

from __future__ import annotations

from typing import Any

from probate.ownership.table import OwnershipTable


class UnwiredKindWarning(UserWarning):
    """Warns of a kind without an ownership table: it accepts ended pids, and has no limits."""


def find_tables(plugin: object) -> list[OwnershipTable[Any]]:
    """Find a plugin's tables: in its class's attributes, its own, and those of its `manager`."""
    places = [vars(type(plugin)), getattr(plugin, "__dict__", {})]
    places.append(getattr(places[-1].get("manager"), "__dict__", {}))
    tables = [
        value for place in places for value in place.values() if isinstance(value, OwnershipTable)
    ]
    return list(dict.fromkeys(tables))
