"""Stores as a host leaves them that was killed, with rows as a test wants them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from children import exit_code_of_fork

from probate.journal.folders import make_host_folder
from probate.journal.header import header_of_this_host
from probate.journal.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def row_of(
    kind: str, identity: Mapping[str, Any], *, state: str = "confirmed", what: str = "a thing"
) -> dict[str, Any]:
    """A row as a host writes it."""
    return {
        "kind": kind,
        "owner": 1,
        "description": what,
        "state": state,
        "at": 0.0,
        "identity": dict(identity),
    }


def dead_store(place: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Have a host die that has these rows; return the folder of its store."""
    before = set(place.glob("host-*"))

    def host() -> None:
        store = Store(str(make_host_folder(header_of_this_host(), str(place))))
        store.write_all({number: json.dumps(row).encode() for number, row in enumerate(rows, 1)})

    assert exit_code_of_fork(host) == 0
    (folder,) = set(place.glob("host-*")) - before
    return folder
