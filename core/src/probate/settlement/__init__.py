"""Settles the estates of hosts that have died, from their journals.

settling.py  settles one dead host: from its rows to an account
rows.py      what a store tells of, made into records
reclaiming.py  has its things given back, each within its time
sweeping.py  settles all that have died
otheruser.py work of root's for another user, as that user
apart.py     calls in a child that may die of them
account.py   what a settlement says
"""

from __future__ import annotations

from probate.settlement.account import HostAccount, HostState, OwnerAccount, RowAccount
from probate.settlement.sweeping import (
    forget_row,
    forget_row_for,
    read_accounts,
    sweep,
    sweep_for,
)

__all__ = [
    "HostAccount",
    "HostState",
    "OwnerAccount",
    "RowAccount",
    "forget_row",
    "forget_row_for",
    "read_accounts",
    "sweep",
    "sweep_for",
]
