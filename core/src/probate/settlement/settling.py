"""Settles the estate of a host that has died: from its rows to an account.

One cleaner at a time, by a lock; what dies in the midst of it leaves the rows to the next. What
cannot be given back is kept, with the reason, until it can, or somebody says to forget it.
"""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate.errors import describe_error
from probate.journal.folders import (
    HEADER,
    HOSTS,
    KEPT,
    LOCK,
    read_json,
    remove_host_folder,
    write_json,
)
from probate.journal.header import VERSION, is_dead
from probate.journal.notice import NOTICE
from probate.journal.policy import reason_to_leave
from probate.outcome import Outcome
from probate.settlement.account import HostAccount, HostState, OwnerAccount, RowAccount
from probate.settlement.reclaiming import reclaim
from probate.settlement.rows import (
    NONSENSE,
    OF_HOST,
    OF_PLACE,
    Row,
    printable,
    row_of,
    rows_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate.orchestrator import ResourceOrchestrator
    from probate.plugins.registry import PluginRegistry

#: Accounts of settlements that nobody has read yet, at most, the newest.
_MOST_ACCOUNTS: Final = 100

#: The folder beside those of hosts that they are in.
ACCOUNTS: Final = "accounts"


def settle(
    folder: Path, orchestrator: ResourceOrchestrator | None = None, *, dry_run: bool = False
) -> HostAccount:
    """Give back what a dead host has left; return the account.

    By the kinds of `orchestrator`, or else by those that are installed and needed.

    A host that lives, or of which that cannot be told, is left alone. A dry run does all but the
    release. Raises OSError if the folder cannot be used.
    """
    try:
        header = read_json(folder / HEADER)
        if header["readable_since"] > VERSION:
            return _set_aside(folder, "a newer version of Probate has written it", dry_run=True)
        is_dead_host = is_dead(header)
        facts = {"store": str(folder), "pid": header["pid"], "command": tuple(header["command"])}
        living = HostAccount(**facts, state=HostState.ALIVE)
    except NONSENSE as error:
        text = f"its header cannot be read: {describe_error(error)}"
        return _set_aside(folder, text, dry_run=dry_run)
    if is_dead_host is None:
        text = "it is of another pid namespace, whose processes are not seen from here"
        return HostAccount(**facts, state=HostState.UNKNOWN, text=text)
    if not is_dead_host:
        return living
    with _lock(folder) as is_ours:
        if not is_ours:
            return HostAccount(**facts, state=HostState.BEING_SETTLED)
        try:
            found = rows_of(folder)
            registry = _registry_for(found, orchestrator)
            results = settle_rows(folder.name, header, found, registry, dry_run=dry_run)
        except ValueError as error:
            return _set_aside(folder, str(error), dry_run=dry_run)
        text = ""
        if not dry_run:
            try:
                _keep(folder, results)
            except OSError as error:
                # The rows are as they were: the next one finds that most of it is gone.
                text = f"what is kept could not be noted: {describe_error(error)}"
        return HostAccount(
            **facts,
            state=HostState.SETTLED,
            owners=results.owners,
            rows=results.rows,
            text=text,
            is_dry_run=dry_run,
        )


@final
class Results(NamedTuple):
    """What became of the rows of a store."""

    #: Whom the host had.
    owners: tuple[OwnerAccount, ...]
    rows: tuple[RowAccount, ...]
    #: Those of them that are tried again: what is left for good is not among them.
    tried: tuple[Row, ...]


def settle_rows(
    host: str,
    header: dict[str, Any],
    found: list[tuple[int, dict[str, Any]]],
    registry: PluginRegistry,
    *,
    policy: str = "crash",
    dry_run: bool = False,
) -> Results:
    """Give back what the rows of a host tell of; the caller has the lock of their store.

    `policy` is the `settle` of `reason_to_leave`. Raises ValueError if the rows cannot be read.
    """
    owned = [(number, row) for number, row in found if "process" not in row]
    try:
        ended = {number for number, row in found if row.get("ended")}
        owners = {
            number: OwnerAccount.model_validate(row["process"])
            for number, row in found
            if "process" in row
        }
        rows = [
            made
            for number, row in owned
            if (made := row_of(host, number, row, owners, header, registry)) is not None
        ]
    except NONSENSE as error:
        raise ValueError(f"its rows cannot be read: {describe_error(error)}") from error
    reasons = {
        number: reason_to_leave(
            record.evidence,
            holds_data=record.holds_data,
            ended_normally=owner in ended,
            settle=policy,
        )
        for number, record, owner, _, _ in rows
    }
    results = _give_back(rows, reasons, host, registry, dry_run=dry_run)
    tried = tuple(row for row in rows if not reasons[row.number])
    return Results(tuple(owners.values()), tuple(results), tried)


def forget(folder: Path, number: int) -> bool:
    """Drop a row of what was kept of a dead host; return False if there is none of that number."""
    with _lock(folder) as is_ours:
        kept = read_json(folder / KEPT) if is_ours and (folder / KEPT).exists() else []
        left = [each for each in kept if each["number"] != number]
        if len(left) == len(kept):
            return False
        if left:
            write_json(folder / KEPT, left)
        else:
            remove_host_folder(folder)
    return True


def main() -> None:
    """Settle the host whose folder is the first argument: what a reaper becomes."""
    folder = Path(sys.argv[1])
    settle_and_save(folder)


def settle_and_save(folder: Path) -> None:
    """Settle a host by the kinds that are needed, and keep the account until it is read."""
    account = settle(folder)
    if account.rows or account.owners:
        save_account(folder.parent, account)


def save_account(place: Path, account: HostAccount) -> None:
    """Keep an account until somebody has read it; of many, the newest."""
    accounts = place / ACCOUNTS
    accounts.mkdir(0o700, exist_ok=True)
    write_json(accounts / f"{Path(account.store).name}.json", account.model_dump(mode="json"))
    by_age = sorted(accounts.glob(f"{HOSTS}.json"), key=lambda each: each.stat().st_mtime)
    for old in by_age[:-_MOST_ACCOUNTS]:
        old.unlink(missing_ok=True)


# -- the dead ----------------------------------------------------------------


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Keep all other cleaners from a host's folder; tell whether that could be done."""
    try:
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have removed the folder.
            is_ours = os.path.samestat(os.fstat(fd), (folder / LOCK).stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        yield is_ours
    finally:
        os.close(fd)


def _registry_for(
    found: list[tuple[int, dict[str, Any]]], orchestrator: ResourceOrchestrator | None
) -> PluginRegistry:
    """Return the kinds of an orchestrator; without one, those that are installed and needed."""
    if orchestrator is not None:
        from probate.orchestrator import registry_of

        return registry_of(orchestrator)
    from probate.plugins import discovery

    rows = [row for _, row in found if "process" not in row]
    if any(NOTICE in row for row in rows):
        # Whose it is, each of them may know.
        return discovery.installed()
    return discovery.installed({row["kind"] for row in rows})


def _give_back(
    rows: list[Row],
    reasons: dict[int, str],
    host: str,
    registry: PluginRegistry,
    *,
    dry_run: bool,
) -> list[RowAccount]:
    """Have each thing released: in the order of the kinds, and of one kind the newest first.

    But for those that there are reasons to leave.
    """
    places = {kind: place for place, kind in enumerate(registry.order())}
    rows = sorted(rows, key=lambda row: (places.get(row.record.kind, len(places)), -row.number))
    tried = [row.record for row in rows if not reasons[row.number]]
    answers = iter(reclaim(tried, registry, dry_run=dry_run))
    results: list[RowAccount] = []
    for number, record, _, owner, tries in rows:
        outcome, text = Outcome.REFUSED, reasons[number]
        if not text:
            outcome, text = next(answers)
        results.append(
            RowAccount(
                row=f"{host}:{number}",
                kind=record.kind,
                description=record.description,
                owner=owner,
                outcome=outcome,
                text=printable(text),
                tries=tries + 1,
            )
        )
    return results


def _keep(folder: Path, results: Results) -> None:
    """Keep what could not be given back; remove a store of which nothing is left."""
    kept_ones = {int(row.row.rpartition(":")[2]): row for row in results.rows if row.is_kept}
    kept = [
        {
            "number": number,
            "kind": record.kind,
            "description": record.description,
            "owner": owner.model_dump(),
            "state": record.state,
            "evidence": record.evidence,
            "identity": {
                key: value
                for key, value in record.identity.items()
                if key not in {*OF_HOST, OF_PLACE}
            },
            "tries": tries + 1,
            "outcome": kept_ones[number].outcome,
            "text": kept_ones[number].text,
        }
        for number, record, _, owner, tries in results.tried
        if number in kept_ones
    ]
    if kept:
        write_json(folder / KEPT, kept)
    else:
        remove_host_folder(folder)


def _set_aside(folder: Path, text: str, *, dry_run: bool) -> HostAccount:
    """Leave a store that cannot be read to whoever wants to look, out of the way of sweeps."""
    if not dry_run:
        aside = folder.with_name(f"set-aside-{folder.name}")
        with suppress(OSError):
            folder.rename(aside)
            text += f"; it was moved to {aside}"
    return HostAccount(store=str(folder), state=HostState.UNREADABLE, text=text)
