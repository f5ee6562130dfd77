"""LoggedStore: a store that is written to by its log, so that a write takes next to nothing."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final, final

from probate.journal.ahead import AheadLog, read_ahead, remove_ahead
from probate.journal.store import Store, above_standard_streams


@final
class LoggedStore:
    """A store with a log before it. For one thread at a time.

    Rows that were deleted again before the log is full are never written to the store. Raises
    OSError as `Store` does; without room for a log, each row is a transaction.
    """

    def __init__(self, folder: str) -> None:
        self._store: Final = Store(folder)
        #: What the log has, and the store has not.
        self._ahead: dict[int, dict[str, Any] | None] = {}
        self._log: AheadLog | None = None
        self._store.write_all(dict(read_ahead(folder)))
        # If no new one can be made, what stands there would count again, as newer than the store.
        remove_ahead(folder)
        with suppress(OSError), above_standard_streams():
            self._log = AheadLog(folder)

    def put(self, number: int, row: dict[str, Any]) -> None:
        """Write a row of JSON values; it is there for whoever comes after when this has returned.

        Raises OSError.
        """
        self._write(number, row)

    def delete(self, number: int) -> None:
        """Delete a row, if there is one of that number. Raises OSError."""
        self._write(number, None)

    def close(self) -> None:
        """Let go of the files: what is in the log is read from there."""
        if self._log is not None:
            self._log.close()
        self._store.close()

    def _write(self, number: int, row: dict[str, Any] | None) -> None:
        has_room = self._log is not None and self._log.append(number, row)
        self._ahead[number] = row
        if not has_room:
            self._empty()

    def _empty(self) -> None:
        """Have the store have all that the log has."""
        self._store.write_all(
            {
                number: None if row is None else json.dumps(row).encode()
                for number, row in self._ahead.items()
            }
        )
        self._ahead.clear()
        if self._log is not None:
            self._log.clear()
