"""Keeps who owns what, for every plugin, first-party or third-party.

table.py      OwnershipTable: who owns which resources of one kind
queries.py    the half of it that changes nothing
holdings.py   what each owner holds, safe from any thread
index.py      finds a resource by its object or descriptor, which has one owner
descriptors.py  which resource has which descriptor number, in all tables
cleanup.py    releases all that one owner holds, and accounts for it
release.py    calls a table's release function, on the event loop that it needs
callback.py   Callback: a function to be called when its owner ends
sites.py      where a resource was acquired
admission.py  which pids may acquire, and how much
"""

from __future__ import annotations

from probate.outcome import ResourceId
from probate.ownership.callback import Callback
from probate.ownership.table import OwnershipTable

__all__ = ["Callback", "OwnershipTable", "ResourceId"]
