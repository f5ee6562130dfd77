"""Finding the ownership tables of a plugin, so that no author has to hand them in."""

from __future__ import annotations

from typing import Any

from probate.ownership.table import OwnershipTable


class UnwiredKindWarning(UserWarning):
    """A plugin without an ownership table: its kind accepts the dead, and knows no limits."""


def find_tables(plugin: object) -> list[OwnershipTable[Any]]:
    """Find the tables that a plugin keeps: its attributes, its class's, and its manager's."""
    places = [vars(type(plugin)), getattr(plugin, "__dict__", {})]
    places.append(getattr(places[-1].get("manager"), "__dict__", {}))
    tables = [
        value for place in places for value in place.values() if isinstance(value, OwnershipTable)
    ]
    return list(dict.fromkeys(tables))
