"""Settles the estates of hosts that have died, from their journals.

settling.py  settles one dead host: from its rows to an account
sweeping.py  settles all that have died
account.py   what a settlement says
"""

from __future__ import annotations

from probate.settlement.account import HostAccount, HostState, OwnerAccount, RowAccount
from probate.settlement.sweeping import forget_row, read_accounts, sweep

__all__ = [
    "HostAccount",
    "HostState",
    "OwnerAccount",
    "RowAccount",
    "forget_row",
    "read_accounts",
    "sweep",
]
