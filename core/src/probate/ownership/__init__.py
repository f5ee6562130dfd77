"""Who owns what: the one bookkeeping of every plugin, first-party or third-party.

table.py      OwnershipTable: who owns which resources of one kind
holdings.py   what each owner holds, safe from any thread
cleanup.py    the emptying of one owner's holdings, and its account
admission.py  which pids may acquire, and how much
"""

from __future__ import annotations

from probate.ownership.table import OwnershipTable, ResourceId

__all__ = ["OwnershipTable", "ResourceId"]
