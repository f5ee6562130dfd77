"""Settles the estate of a host that has died: from its rows to an account.

One cleaner at a time, by a lock; what dies in the midst of it leaves the rows to the next. What
cannot be given back is kept, with the reason, until it can, or somebody says to forget it.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate.errors import ReleaseError, describe_error
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
from probate.journal.quarantine import quarantine_name
from probate.journal.store import read_rows
from probate.journal.users import look_again
from probate.models import ResourceRecord
from probate.orchestrator import ResourceOrchestrator, registry_of
from probate.outcome import Outcome, checked_outcome
from probate.settlement.account import HostAccount, HostState, OwnerAccount, RowAccount
from probate.settlement.apart import call_apart
from probate.system.callthread import CallThread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate.plugins.registered import RegisteredKind

#: Seconds that one thing's release gets, and that reading a store gets.
_ALLOWANCE: Final = 30.0
_READING: Final = 10.0

#: What is busy is tried again after so many seconds each.
_RETRIES: Final = (0.1, 0.4, 1.5)

#: Accounts of settlements that nobody has read yet, at most, the newest.
_MOST_ACCOUNTS: Final = 100

#: The folder beside those of hosts that they are in.
ACCOUNTS: Final = "accounts"

#: What comes of reading what is not as it should be.
_NONSENSE: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)

#: What the header says for all rows, and `reclaim` finds in each identity; and what follows from
#: where the row is.
_OF_HOST: Final = ("boot", "network_namespace", "mount_namespace", "init")
_OF_PLACE: Final = "quarantine"


@final
class _Row(NamedTuple):
    number: int
    record: ResourceRecord
    owner: OwnerAccount
    tries: int


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
    except _NONSENSE as error:
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
            owners, rows = _rows_of(folder, header)
        except ValueError as error:
            return _set_aside(folder, str(error), dry_run=dry_run)
        if orchestrator is None:
            orchestrator = _with_kinds({row.record.kind for row in rows})
        results = _give_back(rows, folder.name, orchestrator, dry_run=dry_run)
        account = HostAccount(
            **facts,
            state=HostState.SETTLED,
            owners=tuple(owners),
            rows=tuple(results),
            is_dry_run=dry_run,
        )
        if not dry_run:
            try:
                _keep(folder, rows, account)
            except OSError as error:
                # The rows are as they were: the next one finds that most of it is gone.
                text = f"what is kept could not be noted: {describe_error(error)}"
                account = account.model_copy(update={"text": text})
    return account


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


# -- rows --------------------------------------------------------------------


def _rows_of(folder: Path, header: dict[str, Any]) -> tuple[list[OwnerAccount], list[_Row]]:
    """Return whom the host had, and what is still to be given back.

    Raises ValueError if it cannot be read; OSError.
    """
    found = None if (folder / KEPT).exists() else _read_apart(str(folder))
    host = folder.name
    try:
        if found is None:
            kept = read_json(folder / KEPT)
            owners = [OwnerAccount.model_validate(each["owner"]) for each in kept]
            pairs = zip(kept, owners, strict=True)
            return [], [_row(host, each["number"], each, owner, header) for each, owner in pairs]
        by_number = {
            number: OwnerAccount.model_validate(row["process"])
            for number, row in found
            if "process" in row
        }
        things = [(number, row) for number, row in found if number not in by_number]
        nobody = OwnerAccount(pid=0)
        return list(by_number.values()), [
            _row(host, number, row, by_number.get(row["owner"], nobody), header)
            for number, row in things
        ]
    except _NONSENSE as error:
        raise ValueError(f"its rows cannot be read: {describe_error(error)}") from error


def _row(
    host: str, number: int, row: dict[str, Any], owner: OwnerAccount, header: dict[str, Any]
) -> _Row:
    # What was confirmed says where it was made; of an intent, it is where its host began.
    identity = {"ipc_namespace": header.get("ipc_namespace"), **row["identity"]}
    identity |= {each: header.get(each) for each in _OF_HOST}
    identity[_OF_PLACE] = quarantine_name(f"{host}:{number}")
    record = ResourceRecord(
        kind=row["kind"],
        description=_printable(row["description"]),
        os_pid=header["pid"],
        identity=identity,
        state=row["state"],
    )
    return _Row(number, record, owner, row.get("tries", 0))


def _printable(text: str) -> str:
    """Write out the bytes of a path that are no text, which accounts and terminals refuse."""
    return text.encode(errors="backslashreplace").decode()


def _read_apart(folder: str) -> list[tuple[int, dict[str, Any]]]:
    """Read a store in a child, which may die of it. Raises ValueError if it does, or cannot."""

    def read() -> list[tuple[int, Any]]:
        return [(number, json.loads(row)) for number, row in read_rows(folder)]

    try:
        return [(number, row) for number, row in call_apart(read, _READING)]
    except ChildProcessError as error:
        raise ValueError(f"its store is damaged: its reader {error}") from error


def _with_kinds(kinds: set[str]) -> ResourceOrchestrator:
    from probate.plugins import discovery

    return ResourceOrchestrator().discover(kinds & {each.kind for each in discovery.scan()})


def _give_back(
    rows: list[_Row], host: str, orchestrator: ResourceOrchestrator, *, dry_run: bool
) -> list[RowAccount]:
    """Have each thing released: in the order of the kinds, and of one kind the newest first."""
    registry = registry_of(orchestrator)
    places = {kind: place for place, kind in enumerate(registry.order())}
    rows = sorted(rows, key=lambda row: (places.get(row.record.kind, len(places)), -row.number))
    thread = CallThread("probate-reclaim")
    look_again()
    results: list[RowAccount] = []
    for number, record, owner, tries in rows:
        outcome, text = Outcome.REFUSED, f"kind {record.kind!r} is not installed here"
        if (kind := registry.get(record.kind)) is not None:
            outcome, text = _reclaim(thread, kind, record, dry_run=dry_run)
        results.append(
            RowAccount(
                row=f"{host}:{number}",
                kind=record.kind,
                description=record.description,
                owner=owner,
                outcome=outcome,
                text=_printable(text),
                tries=tries + 1,
            )
        )
    thread.close()
    return results


def _reclaim(
    thread: CallThread, kind: RegisteredKind, record: ResourceRecord, *, dry_run: bool
) -> tuple[Outcome, str]:
    outcome, text = Outcome.BUSY, ""
    for pause in (*_RETRIES, 0):
        future = thread.submit(lambda: kind.reclaim(record=record, dry_run=dry_run))
        try:
            answers = [each for each in future.result(_ALLOWANCE) if each is not None]
            if not answers:
                return Outcome.REFUSED, f"kind {kind.kind!r} cannot give back what is not its own"
            outcome, text = checked_outcome(answers[0]), ""
        except concurrent.futures.TimeoutError:
            thread.abandon()
            return Outcome.TIMEOUT, f"it did not come free within {_ALLOWANCE:.0f} seconds"
        except ReleaseError as error:
            outcome, text = error.outcome, str(error)
        except Exception as error:
            outcome, text = Outcome.FAILED, describe_error(error)
        if outcome is not Outcome.BUSY or dry_run:
            break
        time.sleep(pause)
    return outcome, text


def _keep(folder: Path, rows: list[_Row], account: HostAccount) -> None:
    """Keep what could not be given back; remove a store of which nothing is left."""
    results = {int(row.row.rpartition(":")[2]): row for row in account.kept}
    kept = [
        {
            "number": number,
            "kind": record.kind,
            "description": record.description,
            "owner": owner.model_dump(),
            "state": record.state,
            "identity": {
                key: value
                for key, value in record.identity.items()
                if key not in {*_OF_HOST, _OF_PLACE}
            },
            "tries": tries + 1,
            "outcome": results[number].outcome,
            "text": results[number].text,
        }
        for number, record, owner, tries in rows
        if number in results
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
