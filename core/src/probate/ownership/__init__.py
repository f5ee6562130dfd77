"""Who owns what: the one bookkeeping of every plugin, first-party or third-party.

table.py      OwnershipTable: who owns which resources of one kind
holdings.py   what each owner holds, safe from any thread
index.py      which object is which resource; one owner each
cleanup.py    the release of all that one owner holds, and its account
release.py    the release function of a table, on the thread or loop that it needs
callback.py   Callback: what no kind knows, with the function that gives it back
admission.py  which pids may acquire, and how much
"""

from __future__ import annotations

from probate.outcome import ResourceId
from probate.ownership.callback import Callback
from probate.ownership.table import OwnershipTable

__all__ = ["Callback", "OwnershipTable", "ResourceId"]
