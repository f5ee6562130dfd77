"""sweep: settles the estates of all dead hosts of this user whose reapers have died, too."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from probate.errors import describe_error
from probate.journal.folders import (
    HOSTS,
    host_folders,
    places,
    read_json,
    remove_unfinished,
    unusable_places,
)
from probate.settlement.account import HostAccount, HostState
from probate.settlement.otheruser import call_as
from probate.settlement.settling import ACCOUNTS, forget, settle, settle_and_save

if TYPE_CHECKING:
    import pwd

    from probate.orchestrator import ResourceOrchestrator


def sweep(
    orchestrator: ResourceOrchestrator, where: str | None = None, *, dry_run: bool = False
) -> list[HostAccount]:
    """Settle all hosts that have died, in the folder `where`, or wherever this user's are kept.

    Returns what was found of each, also of those that live; and, once, what reapers have settled
    since the last sweep. A folder that others may change is not looked into, and said to be
    unreadable. Any number of sweeps may run at a time.
    """
    remove_unfinished(where)
    accounts = read_accounts(where, keep=dry_run)
    for place, problem in unusable_places(where):
        text = f"no store in it is looked at: {problem}"
        accounts.append(HostAccount(store=str(place), state=HostState.UNREADABLE, text=text))
    for folder in host_folders(where):
        try:
            accounts.append(settle(folder, orchestrator, dry_run=dry_run))
        except FileNotFoundError:
            # Another sweep has just removed it.
            continue
        except OSError as error:
            text = f"it cannot be settled now: {describe_error(error)}"
            state = HostState.UNREADABLE
            accounts.append(HostAccount(store=str(folder), state=state, text=text))
    return accounts


def sweep_for(
    user: pwd.struct_passwd, orchestrator: ResourceOrchestrator, *, dry_run: bool = False
) -> list[HostAccount]:
    """Sweep for a user, as that user, by root: with the user's folders, and the user's rights.

    Raises OSError if that cannot be done, ChildProcessError if it did not come to an end.
    """

    def work() -> list[dict[str, Any]]:
        accounts = sweep(orchestrator, dry_run=dry_run)
        return [account.model_dump(mode="json") for account in accounts]

    return [HostAccount.model_validate(each) for each in call_as(user, work)]


def main() -> None:
    """Settle all hosts that have died, in the folder that is the first argument."""
    where = sys.argv[1] if sys.argv[1:] else None
    remove_unfinished(where)
    for folder in host_folders(where):
        # One that fails is no reason to leave the others.
        with suppress(Exception):
            settle_and_save(folder)


def read_accounts(where: str | None = None, *, keep: bool = False) -> list[HostAccount]:
    """Return the accounts that nobody has read yet, of what reapers have settled."""
    found: list[HostAccount] = []
    for place in places(where):
        for path in sorted((place / ACCOUNTS).glob(f"{HOSTS}.json")):
            with suppress(OSError, ValueError):
                account = HostAccount.model_validate(read_json(path))
                if not keep:
                    # Whoever removes it has read it: nobody else hands it out.
                    path.unlink()
                found.append(account)
    return found


def forget_row(row: str, where: str | None = None) -> bool:
    """Drop what was kept under HOST:NUMBER; return False if there is no such row."""
    host, _, number = row.rpartition(":")
    folders = [folder for folder in host_folders(where) if folder.name == host]
    return bool(folders) and number.isdigit() and forget(folders[0], int(number))


def forget_row_for(user: pwd.struct_passwd, row: str) -> bool:
    """Do as `forget_row`, as that user, by root. Raises as `sweep_for`."""
    return bool(call_as(user, lambda: forget_row(row)))
