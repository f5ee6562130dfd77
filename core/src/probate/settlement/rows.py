"""The rows of a dead host's store: read, and made into records of what is to be given back."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate.errors import describe_error
from probate.journal.folders import KEPT, read_json
from probate.journal.handles import boot_id, ipc_namespace
from probate.journal.loggedstore import read_rows
from probate.journal.made import seen_again
from probate.journal.notice import NOTICE, Notice
from probate.journal.quarantine import quarantine_name
from probate.models import ResourceRecord
from probate.settlement.account import OwnerAccount
from probate.settlement.apart import call_apart

if TYPE_CHECKING:
    from pathlib import Path

    from probate.plugins.registry import PluginRegistry

#: Seconds that reading a store gets.
_READING: Final = 10.0

#: What comes of reading what is not as it should be.
NONSENSE: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)

#: What the header says for all rows, and `reclaim` finds in each identity; and what follows from
#: where the row is.
OF_HOST: Final = ("boot", "network_namespace", "mount_namespace", "init")
OF_PLACE: Final = "quarantine"


@final
class Row(NamedTuple):
    """A thing that is to be given back, or left."""

    number: int
    record: ResourceRecord
    #: The number of its owner's row; 0 if there is none.
    owner: int
    account: OwnerAccount
    tries: int


def rows_of(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of a store, or what was kept of them. Raises ValueError, OSError."""
    if not (folder / KEPT).exists():
        return _read_apart(str(folder))
    try:
        return [(each["number"], each) for each in read_json(folder / KEPT)]
    except NONSENSE as error:
        raise ValueError(f"its rows cannot be read: {describe_error(error)}") from error


def row_of(
    host: str,
    number: int,
    row: dict[str, Any],
    owners: dict[int, OwnerAccount],
    header: dict[str, Any],
    registry: PluginRegistry,
) -> Row | None:
    """Make of a row what is to be given back; None if it tells of nothing that any kind knows."""
    # What was confirmed says where it was made; of an intent, it is where its host began.
    identity = {
        "ipc_namespace": header.get("ipc_namespace"),
        **row["identity"],
        **{each: header.get(each) for each in OF_HOST},
        OF_PLACE: f"{quarantine_name(host)}/{number}",
    }
    owner = row["owner"]
    # Of what was kept, the owner stands in the row itself.
    account = (
        OwnerAccount.model_validate(owner)
        if isinstance(owner, dict)
        else owners.get(owner, OwnerAccount(pid=0))
    )
    record: ResourceRecord | None
    if NOTICE in row:
        record = _noticed(registry, _seen(Notice.from_row({**row, "identity": identity})))
        if record is None:
            return None
    else:
        record = ResourceRecord(
            kind=row["kind"],
            description=printable(row["description"]),
            os_pid=header["pid"],
            identity=identity,
            state=row["state"],
            evidence=row.get("evidence", "made"),
        )
    return Row(number, record, owner if isinstance(owner, int) else 0, account, row.get("tries", 0))


def _seen(notice: Notice) -> Notice | None:
    """Return a notice with what was made since it was noted; None if that was nothing."""
    identity = notice.identity
    if identity["boot"] != boot_id() or identity["ipc_namespace"] != ipc_namespace():
        # It is gone, or not seen from here.
        return notice
    with suppress(OSError):
        return seen_again(notice)
    return notice


def _noticed(registry: PluginRegistry, notice: Notice | None) -> ResourceRecord | None:
    """Ask all kinds whose a noticed thing is; None if nobody knows it."""
    if notice is None:
        return None
    for name in registry.order():
        kind = registry.get(name)
        # One that fails is no reason to ask no other.
        with suppress(Exception):
            if kind is not None and (record := kind.noticed(notice=notice)) is not None:
                text = printable(record.description)
                return ResourceRecord(**{**dict(record), "description": text})
    return None


def printable(text: str) -> str:
    """Write out the bytes of a path that are no text, which accounts and terminals refuse."""
    return text.encode(errors="backslashreplace").decode()


def _read_apart(folder: str) -> list[tuple[int, dict[str, Any]]]:
    """Read a store in a child, which may die of it.

    Raises ValueError if it does, or cannot; OSError for want of memory, which is no damage.
    """

    def read() -> bytes | None:
        try:
            # They are JSON, for whoever has called, and most of the work here would be theirs.
            rows = b", ".join(b"[%d, %b]" % each for each in read_rows(folder))
        except MemoryError:
            return None
        return b"[%b]" % rows

    try:
        found = call_apart(read, _READING)
    except ChildProcessError as error:
        raise ValueError(f"its store is damaged: its reader {error}") from error
    if found is None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), folder)
    if not all(isinstance(row, dict) for _, row in found):
        raise ValueError("its rows cannot be read: some are no rows")
    return [(number, row) for number, row in found]
